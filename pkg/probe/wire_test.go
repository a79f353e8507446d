package probe

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"
)

func drawMessage(t *rapid.T) Message {
	return Message{
		Kind:     rapid.SampledFrom([]Kind{Question, Answer}).Draw(t, "kind"),
		Ready:    rapid.Bool().Draw(t, "ready"),
		Away:     rapid.Bool().Draw(t, "away"),
		Sequence: rapid.Uint64().Draw(t, "sequence"),
		Token:    rapid.Uint64().Draw(t, "token"),
		Instance: rapid.Uint64().Draw(t, "instance"),
		Host:     rapid.Uint64().Draw(t, "host"),
	}
}

// Kills the mutant "fields-swapped": Parse reads the token where the sequence is.
func TestPropertyMessagesSurviveTheWire(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawMessage(t)
		b := m.Append(nil)
		if len(b) != Size {
			t.Fatalf("%d bytes", len(b))
		}
		if got, err := Parse(b); err != nil || got != m {
			t.Fatalf("%+v became %+v, %v", m, got, err)
		}
	})
}

// Agents of two versions meet in each upgrade.
func TestLaterVersionsAreUnderstood(t *testing.T) {
	m := Message{Kind: Question, Sequence: 1, Token: 2, Instance: 3, Host: HostHash("node3")}
	b := append(m.Append(nil), "a field of version 2"...)
	b[4] = 2
	if got, err := Parse(b); err != nil || got != m {
		t.Errorf("version 2 became %+v, %v", got, err)
	}
}

func TestWhatIsNoMessage(t *testing.T) {
	good := Message{Kind: Question}.Append(nil)
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":   func([]byte) []byte { return nil },
		"too short": func(b []byte) []byte { return b[:Size-1] },
		"too long":  func(b []byte) []byte { return append(b, 0) },
		"magic":     func(b []byte) []byte { b[0] ^= 1; return b },
		"version":   func(b []byte) []byte { b[4] = 0; return b },
		"kind":      func(b []byte) []byte { b[5] = 3; return b },
	} {
		t.Run(name, func(t *testing.T) {
			if m, err := Parse(spoil(bytes.Clone(good))); !errors.Is(err, ErrMalformed) {
				t.Errorf("%+v, %v", m, err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(Message{Kind: Question, Sequence: 1, Token: 2, Instance: 3, Host: 4}.Append(nil))
	f.Add(append(Message{Kind: Answer, Ready: true}.Append(nil), 1, 2, 3))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			if !errors.Is(err, ErrMalformed) || m != (Message{}) {
				t.Fatalf("%+v, %v", m, err)
			}
			return
		}
		if again, err := Parse(m.Append(nil)); err != nil || again != m {
			t.Fatalf("%+v became %+v, %v", m, again, err)
		}
	})
}

// The kernel's control messages quote what others sent.
func FuzzRefusedBy(f *testing.F) {
	f.Add([]byte(nil))
	f.Add(make([]byte, 64))
	f.Fuzz(func(_ *testing.T, b []byte) { refusedBy(b) })
}
