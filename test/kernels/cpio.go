package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
)

// image is an initramfs under construction: an archive in cpio's format newc.
type image struct {
	content bytes.Buffer
	inodes  int
}

// Modes of entries.
const (
	modeDir     = 0o040755
	modeProgram = 0o100755
	modeFile    = 0o100644
	modeDevice  = 0o020600
)

// add adds an entry. Those of a folder come after the folder.
func (i *image) add(name string, mode uint32, data []byte) { i.entry(name, mode, data, 0, 0) }

func (i *image) entry(name string, mode uint32, data []byte, major, minor uint32) {
	i.inodes++
	i.content.WriteString("070701")
	for _, field := range []uint32{
		uint32(i.inodes), mode, 0, 0, 1, 0, uint32(len(data)), 0, 0, major, minor, uint32(len(name) + 1), 0,
	} {
		fmt.Fprintf(&i.content, "%08X", field)
	}
	i.content.WriteString(name + "\x00")
	i.pad()
	i.content.Write(data)
	i.pad()
}

func (i *image) pad() {
	for i.content.Len()%4 != 0 {
		i.content.WriteByte(0)
	}
}

// write ends the archive and writes it, compressed.
func (i *image) write(path string) error {
	i.add("TRAILER!!!", 0, nil)
	var compressed bytes.Buffer
	z := gzip.NewWriter(&compressed)
	if _, err := z.Write(i.content.Bytes()); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	return os.WriteFile(path, compressed.Bytes(), 0o600)
}
