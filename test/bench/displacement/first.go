package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane"
)

// errChanging says that the kernel was asked while it changed.
var errChanging = errors.New("the rules changed meanwhile")

// eye asks the kernel which rule stands first in a chain.
type eye struct {
	backend dataplane.Backend
	fd      int // of a raw socket, for legacy
}

func newEye(b dataplane.Backend) (*eye, error) {
	e := &eye{backend: b, fd: -1}
	if b == dataplane.Legacy {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
		if err != nil {
			return nil, fmt.Errorf("open a raw socket to ask for rules: %w", err)
		}
		e.fd = fd
	}
	return e, nil
}

func (e *eye) close() error {
	if e.fd < 0 {
		return nil
	}
	return unix.Close(e.fd)
}

// oursFirst reports whether the jump to our chain is the first rule of the chain
// that it stands in.
func (e *eye) oursFirst(k kind) (bool, error) {
	ask := e.nft
	if e.backend == dataplane.Legacy {
		ask = e.legacy
	}
	for {
		first, err := ask(k)
		if !errors.Is(err, errChanging) {
			return first, err
		}
	}
}

// nft reads the rules of one chain. A rule that jumps holds the name of the chain
// that it jumps to.
func (e *eye) nft(k kind) (bool, error) {
	r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	r.AddData(&nl.Nfgenmsg{NfgenFamily: unix.NFPROTO_IPV4})
	r.AddData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(k.table)))
	r.AddData(nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(k.chain)))
	rules, err := r.Execute(unix.NETLINK_NETFILTER, 0)
	switch {
	case errors.Is(err, nl.ErrDumpInterrupted), errors.Is(err, unix.EINTR):
		return false, errChanging
	case err != nil:
		return false, fmt.Errorf("ask for nft rules of %s %s: %w", k.table, k.chain, err)
	case len(rules) == 0:
		return false, nil
	}
	return bytes.Contains(rules[0], nl.ZeroTerminated(k.ours)), nil
}

// Of linux/netfilter_ipv4/ip_tables.h and x_tables.h: options of a raw socket, and
// where what is in their answers.
const (
	soGetInfo, soGetEntries = 64, 65

	nameSize      = 32  // of a table
	infoSize      = 84  // struct ipt_getinfo
	infoHooks     = 36  // its hook_entry
	infoBytes     = 80  // its size
	entriesStart  = 40  // struct ipt_get_entries
	entryTarget   = 88  // target_offset of struct ipt_entry
	entryNext     = 90  // its next_offset
	entrySize     = 112 // without matches
	targetName    = 2   // of struct xt_entry_target
	targetNameLen = 29
	targetSize    = 32
)

// legacy reads a whole table. A jump is an offset; before the entry there stands
// one with the name of the chain.
func (e *eye) legacy(k kind) (bool, error) {
	info := make([]byte, infoSize)
	copy(info, k.table)
	if err := getsockopt(e.fd, soGetInfo, info); err != nil {
		return false, fmt.Errorf("ask for legacy table %s: %w", k.table, err)
	}
	size := binary.NativeEndian.Uint32(info[infoBytes:])
	answer := make([]byte, entriesStart+size)
	copy(answer, k.table)
	binary.NativeEndian.PutUint32(answer[nameSize:], size)
	switch err := getsockopt(e.fd, soGetEntries, answer); {
	case errors.Is(err, unix.EAGAIN):
		return false, errChanging // it has another size by now
	case err != nil:
		return false, fmt.Errorf("ask for rules of legacy table %s: %w", k.table, err)
	}
	entries := answer[entriesStart:]
	first := entries[binary.NativeEndian.Uint32(info[infoHooks+4*k.hook:]):]
	target := first[binary.NativeEndian.Uint16(first[entryTarget:]):]
	if target[targetName] != 0 {
		return false, nil // no jump
	}
	to := int(int32(binary.NativeEndian.Uint32(target[targetSize:])))
	if to < 0 {
		return false, nil // a verdict
	}
	head := -1
	for at := 0; at < to; {
		next := int(binary.NativeEndian.Uint16(entries[at+entryNext:]))
		if next < entrySize {
			return false, fmt.Errorf("legacy table %s: an entry of %d bytes", k.table, next)
		}
		head, at = at, at+next
	}
	if head < 0 {
		return false, fmt.Errorf("legacy table %s: a jump to its begin", k.table)
	}
	name := entries[head+entrySize:]
	if unix.ByteSliceToString(name[targetName:targetName+targetNameLen]) != "ERROR" {
		return false, nil // into the middle of a chain
	}
	return unix.ByteSliceToString(name[targetSize:]) == k.ours, nil
}

// getsockopt fills a value, whose begin says what is asked for.
func getsockopt(fd, option int, value []byte) error {
	length := uint32(len(value))
	// x/sys has no such call for values that are neither numbers nor texts.
	if _, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_IP, uintptr(option),
		uintptr(unsafe.Pointer(&value[0])), uintptr(unsafe.Pointer(&length)), 0); errno != 0 {
		return errno
	}
	return nil
}
