package probe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
)

// Size is the length of every message in bytes, questions and answers alike: a
// responder cannot be used to amplify traffic.
const Size = 48

// Version is what this code sends.
const Version = 1

// maxDatagram is the longest message that is read. Later versions may append
// fields.
const maxDatagram = 512

const magic = 0x65677072 // "egpr"

// Kind distinguishes questions and answers.
type Kind uint8

const (
	// Question is sent by a prober.
	Question Kind = 1
	// Answer is sent by a responder, and never answered.
	Answer Kind = 2
)

const (
	flagReady = 0x01
	flagAway  = 0x02
)

// Message is a probe or its answer. On the wire, all numbers big-endian:
//
//	0  magic "egpr"      4 version   5 kind   6 flags (1: ready, 2: away)   7 zero
//	8  sequence         16 token    24 instance   32 host   40 zero (8 bytes)
//
// Later versions keep these fields and may append others, so that agents of two
// versions understand each other while a cluster is upgraded.
type Message struct {
	Kind Kind
	// Ready, in answers: the data plane of the host works.
	Ready bool
	// Away, in answers: the kernel answers for an agent that it has not heard of for
	// some seconds. It is never ready then.
	Away bool
	// Sequence counts the questions of one prober to one host.
	Sequence uint64
	// Token is random for each question, and repeated in the answer. Only a
	// receiver of the question can answer it.
	Token uint64
	// Instance is a random number that the sender keeps from its start to its
	// end.
	Instance uint64
	// Host is the HostHash of the host that is probed, or that answers: an address
	// that now belongs to another host does not answer for the old one.
	Host uint64
}

// ErrMalformed is the error of bytes that are not a message.
var ErrMalformed = errors.New("not a probe message")

// Append appends the wire form of m to b.
func (m Message) Append(b []byte) []byte {
	var flags byte
	if m.Ready {
		flags |= flagReady
	}
	if m.Away {
		flags |= flagAway
	}
	b = binary.BigEndian.AppendUint32(b, magic)
	b = append(b, Version, byte(m.Kind), flags, 0)
	for _, n := range []uint64{m.Sequence, m.Token, m.Instance, m.Host, 0} {
		b = binary.BigEndian.AppendUint64(b, n)
	}
	return b
}

// Parse reads a message. Whatever the bytes are, it returns a message or an
// error that is ErrMalformed.
func Parse(b []byte) (Message, error) {
	switch {
	case len(b) < Size:
		return Message{}, fmt.Errorf("%w: %d bytes", ErrMalformed, len(b))
	case binary.BigEndian.Uint32(b) != magic:
		return Message{}, fmt.Errorf("%w: begins with %x", ErrMalformed, b[:4])
	case b[4] < Version:
		return Message{}, fmt.Errorf("%w: version %d", ErrMalformed, b[4])
	case b[4] == Version && len(b) != Size:
		return Message{}, fmt.Errorf("%w: %d bytes in version %d", ErrMalformed, len(b), b[4])
	}
	kind := Kind(b[5])
	if kind != Question && kind != Answer {
		return Message{}, fmt.Errorf("%w: kind %d", ErrMalformed, b[5])
	}
	return Message{
		Kind:     kind,
		Ready:    b[6]&flagReady != 0,
		Away:     b[6]&flagAway != 0,
		Sequence: binary.BigEndian.Uint64(b[8:]),
		Token:    binary.BigEndian.Uint64(b[16:]),
		Instance: binary.BigEndian.Uint64(b[24:]),
		Host:     binary.BigEndian.Uint64(b[32:]),
	}, nil
}

// HostHash is the wire form of a host's name (64-bit FNV-1a). It is not a secret and
// proves nothing: the token does.
func HostHash(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name)) // never fails, by its documentation
	return h.Sum64()
}
