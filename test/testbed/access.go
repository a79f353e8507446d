package testbed

import (
	"fmt"
	"io"
	"net/netip"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// AccessLog reads the bastion's access log, which is in common log format:
//
//	192.168.7.200 - - [02/Jan/2026:15:04:05 +0000] "GET /?x HTTP/1.1" 200 42
type AccessLog struct {
	path string
	// line matches the format.
	line *regexp.Regexp
}

// Entry is one request.
type Entry struct {
	Source netip.Addr
	Time   time.Time // whole seconds
	Method string
	URI    string
	Status int
	Bytes  int64 // of the answer's body
	Line   string
}

// AccessLog returns the reader of the bastion's log. A request is in the log
// before its client has the answer.
func (c *Cluster) AccessLog() *AccessLog {
	return &AccessLog{path: c.accessLogPath(), line: regexp.MustCompile(`^(\S+) - - \[([^\]]+)\] "(\S+) (\S+) [^"]+" (\d+) (\d+)$`)}
}

// Since returns the entries from an offset in bytes on, and the offset that
// follows them.
func (l *AccessLog) Since(offset int64) ([]Entry, int64, error) {
	f, err := os.Open(l.path)
	if err != nil {
		return nil, offset, fmt.Errorf("read access log: %w", err)
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return nil, offset, fmt.Errorf("read access log: %w", err)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, offset, fmt.Errorf("read access log: %w", err)
	}
	// A line that is being written belongs to the next call.
	text := string(data[:strings.LastIndexByte(string(data), '\n')+1])
	var entries []Entry
	for line := range strings.Lines(text) {
		entry, err := l.parse(strings.TrimSuffix(line, "\n"))
		if err != nil {
			return nil, offset, err
		}
		entries = append(entries, entry)
	}
	return entries, offset + int64(len(text)), nil
}

func (l *AccessLog) parse(line string) (Entry, error) {
	m := l.line.FindStringSubmatch(line)
	if m == nil {
		return Entry{}, fmt.Errorf("read access log: strange line %q", line)
	}
	source, err := netip.ParseAddr(m[1])
	if err != nil {
		return Entry{}, fmt.Errorf("read access log: %w", err)
	}
	at, err := time.Parse("02/Jan/2006:15:04:05 -0700", m[2])
	if err != nil {
		return Entry{}, fmt.Errorf("read access log: %w", err)
	}
	e := Entry{Source: source, Time: at, Method: m[3], URI: m[4], Line: line}
	if e.Status, err = strconv.Atoi(m[5]); err != nil {
		return Entry{}, fmt.Errorf("read access log: %w", err)
	}
	if e.Bytes, err = strconv.ParseInt(m[6], 10, 64); err != nil {
		return Entry{}, fmt.Errorf("read access log: %w", err)
	}
	return e, nil
}

// Find returns the entries whose URI contains a text.
func (l *AccessLog) Find(text string) ([]Entry, error) {
	all, _, err := l.Since(0)
	if err != nil {
		return nil, err
	}
	var found []Entry
	for _, e := range all {
		if strings.Contains(e.URI, text) {
			found = append(found, e)
		}
	}
	return found, nil
}
