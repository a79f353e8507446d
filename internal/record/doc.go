// Package record is the record of use: who used which egress IP, from which host,
// and when. Whoever records writes one term after another; a time without a term is a gap,
// of which nothing is known, and which is never filled with what was before or after it.
//
// A term is a number of lines, which are kept in memory, and in files if there is a volume:
//
//	begin   a segment begins: who writes, and in which term
//	held    what is in use at that moment, one line for each egress IP
//	known   all that is in use has been listed: from now on the record is complete
//	change  the use of an egress IP begins, moves to another host, or ends
//	alive   nothing happened; written when nothing else was for a while, so that the end of
//	        a writer that crashed is known
//	end     the writer stopped
//
// Lines are JSON, numbered within their segment. Where a number is missing, or a line cannot
// be read, the segment ends with the line before, and goes on at its next begin: a file that
// is rotated begins with one, so that older files are not needed. A writer that could not
// write begins another segment when it can again.
//
// Reading depends on lines alone (History, Rows); files, time and goroutines are the
// Recorder's. All methods of a Recorder are safe for concurrent use, and those that record
// never wait for a disk.
package record
