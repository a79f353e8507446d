package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

const (
	// filePrefix and fileSuffix are around the time at which a file was made, and its writer:
	// names are in order of time.
	filePrefix, fileSuffix = "use-", ".jsonl"
	fileTime               = "20060102T150405.000000000Z"
	// parts is how many files of full size there are, and filesAtMost how many files, of all
	// writers together.
	parts, filesAtMost = 5, 1000
)

// files are those of one directory, to which one writer appends. It is for one goroutine.
type files struct {
	dir, writer string
	// atMost is how large all files of the directory may become together, in bytes, and each
	// of them a fifth of that. Only one that begins with more than that, because so much is
	// in use, is larger.
	atMost int64

	file *os.File // nil if none is open
	name string
	size int64
	// segment is what was written of the present segment; nil before it begins.
	segment *builder
	id      string
}

// begin begins a segment in the newest file of this writer, or in a new one.
func (f *files) begin(id string, lines []line) error {
	f.close()
	text, b := f.encode(id, 0, nil, lines)
	if err := f.open(int64(len(text)), lines[0].Time); err != nil {
		return err
	}
	if err := f.write(text); err != nil {
		return err
	}
	f.id, f.segment = id, b
	return nil
}

// append appends lines to the segment.
func (f *files) append(lines []line) error {
	text, _ := f.encode(f.id, f.segment.number, nil, lines)
	if f.size+int64(len(text)) > f.atMost/parts {
		if err := f.rotate(lines[0].Time); err != nil {
			return err
		}
		text, _ = f.encode(f.id, f.segment.number, nil, lines)
	}
	if err := f.write(text); err != nil {
		return err
	}
	f.encode(f.id, f.segment.number, f.segment, lines)
	return nil
}

// rotate goes on with the segment in a new file, at the beginning of which everything stands
// that must be known of the older ones.
func (f *files) rotate(at time.Time) error {
	f.close()
	if err := f.create(at); err != nil {
		return err
	}
	lines := f.segment.lines(at)
	text, _ := f.encode(f.id, f.segment.number, nil, lines)
	if int64(len(text)) > f.atMost/parts/2 {
		lines = lines[:1]
		text, _ = f.encode(f.id, f.segment.number, nil, lines)
	}
	if err := f.write(text); err != nil {
		return err
	}
	f.segment.number += len(lines)
	f.segment.last = at
	return nil
}

// encode numbers lines from the one after last, and adds them to a builder, or to a new one if
// they begin a segment.
func (f *files) encode(id string, last int, b *builder, lines []line) ([]byte, *builder) {
	var text []byte
	for i := range lines {
		lines[i].Segment, lines[i].Number = id, last+i+1
		text = lines[i].appendTo(text)
		switch {
		case b != nil:
			b.add(&lines[i])
			b.segment.Periods = nil // only what is open is needed
		case last == 0:
			b = newBuilder(&Query{}, &lines[i])
		}
	}
	return text, b
}

// lines are those that begin a segment, or a file, with what is in use.
func (b *builder) lines(at time.Time) []line {
	all := []line{{Time: at, Kind: kindBegin, Term: b.segment.Term, Writer: b.segment.Writer}}
	for _, p := range b.uses() {
		all = append(all, line{Time: at, Kind: kindHeld, Change: Change{Use: p.Use, Reason: p.Began}, Since: &p.From, Found: p.Found})
	}
	return append(all, line{Time: at, Kind: kindKnown})
}

// uses are those that are open, in order.
func (b *builder) uses() []Period {
	all := make([]Period, 0, len(b.open))
	for _, p := range b.open {
		all = append(all, *p)
	}
	slices.SortFunc(all, byTime)
	return all
}

// write writes text to the open file, and waits until it is stored. After an error nothing more
// is written to that file: what is on the disk is not known.
func (f *files) write(text []byte) error {
	n, err := f.file.Write(text)
	f.size += int64(n)
	if err == nil {
		err = f.file.Sync()
	}
	if err != nil {
		f.close()
		return fmt.Errorf("write the record of use: %w", err)
	}
	return nil
}

func (f *files) close() {
	if f.file != nil {
		f.file.Close() // all that counts was synced
		f.file = nil
	}
}

// open opens the newest file if it is this writer's and has room, else a new one: what is in a
// file is later than all that is in older ones.
func (f *files) open(room int64, at time.Time) error {
	all, err := list(f.dir)
	if err != nil {
		return err
	}
	if len(all) == 0 || writerOf(all[len(all)-1]) != f.writer {
		return f.create(at)
	}
	newest := filepath.Join(f.dir, all[len(all)-1])
	info, err := os.Stat(newest)
	if err != nil || info.Size()+room > f.atMost/parts {
		return f.create(at)
	}
	if f.file, err = os.OpenFile(newest, os.O_RDWR|os.O_APPEND, 0); err != nil {
		return f.create(at)
	}
	f.name, f.size = all[len(all)-1], info.Size()
	return f.mend()
}

// mend ends a line that a crash has cut off.
func (f *files) mend() error {
	if f.size == 0 {
		return nil
	}
	last := make([]byte, 1)
	if _, err := f.file.ReadAt(last, f.size-1); err != nil {
		f.close()
		return fmt.Errorf("read the end of the record of use: %w", err)
	}
	if last[0] == '\n' {
		return nil
	}
	return f.write([]byte("\n"))
}

// create creates a file, and removes the oldest if there are too many.
func (f *files) create(at time.Time) error {
	name := filePrefix + at.UTC().Format(fileTime) + "-" + f.writer + fileSuffix
	all, err := list(f.dir)
	if err != nil {
		return err
	}
	if len(all) > 0 && name <= all[len(all)-1] { // a clock was set back
		newest, err := time.Parse(fileTime, all[len(all)-1][len(filePrefix):len(filePrefix)+len(fileTime)])
		if err == nil {
			name = filePrefix + newest.Add(1).Format(fileTime) + "-" + f.writer + fileSuffix
		}
	}
	if f.file, err = os.OpenFile(filepath.Join(f.dir, name), os.O_RDWR|os.O_APPEND|os.O_CREATE|os.O_EXCL, 0o640); err != nil {
		return fmt.Errorf("create a file of the record of use: %w", err)
	}
	f.name, f.size = name, 0
	if err := errors.Join(f.makeRoom(all), syncDir(f.dir)); err != nil {
		f.close()
		return err
	}
	return nil
}

// makeRoom removes the oldest of other files, so that the new one has room.
func (f *files) makeRoom(others []string) error {
	sizes := make([]int64, len(others))
	total := f.atMost / parts
	for i, name := range others {
		if info, err := os.Stat(filepath.Join(f.dir, name)); err == nil {
			sizes[i] = info.Size()
			total += info.Size()
		}
	}
	var errs []error
	for i, name := range others {
		if total <= f.atMost && len(others)-i < filesAtMost {
			break
		}
		if err := os.Remove(filepath.Join(f.dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("remove the oldest file of the record of use: %w", err))
		}
		total -= sizes[i]
	}
	return errors.Join(errs...)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// list are the names of the files of a directory, the oldest first.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir) // in order of name
	if err != nil {
		return nil, fmt.Errorf("read the directory of the record of use: %w", err)
	}
	var names []string
	for _, e := range entries {
		if e.Type().IsRegular() && writerOf(e.Name()) != "" {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// writerOf is the writer in a file's name; empty if it is not one of ours.
func writerOf(name string) string {
	name, ours := strings.CutPrefix(name, filePrefix)
	name, also := strings.CutSuffix(name, fileSuffix)
	if !ours || !also || len(name) < len(fileTime)+2 || name[len(fileTime)] != '-' {
		return ""
	}
	if _, err := time.Parse(fileTime, name[:len(fileTime)]); err != nil {
		return ""
	}
	return name[len(fileTime)+1:]
}

// fileName is a writer's name as part of a file's.
func fileName(writer string) string { return url.PathEscape(writer) }

// read reads what a directory has.
func read(dir string, q Query) ([]Segment, error) {
	names, err := list(dir)
	if err != nil {
		return nil, err
	}
	h := newHistory(q)
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was the oldest
		}
		if err != nil {
			return nil, fmt.Errorf("read the record of use: %w", err)
		}
		h.nextFile()
		h.addText(text)
	}
	return h.segments(), nil
}

// addText takes the lines of a file.
func (h *history) addText(text []byte) {
	for len(text) > 0 {
		first, rest, whole := bytes.Cut(text, []byte("\n"))
		text = rest
		if !whole {
			return // a writer crashed, or writes at this moment
		}
		if len(first) == 0 {
			continue
		}
		l, err := parseLine(first)
		if err != nil {
			h.unreadable()
			continue
		}
		h.add(&l)
	}
}
