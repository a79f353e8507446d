package record

import (
	"encoding/json"
	"fmt"
	"time"
)

// kind says what a line means; see the package's documentation.
type kind string

const (
	kindBegin  kind = "begin"
	kindHeld   kind = "held"
	kindKnown  kind = "known"
	kindChange kind = "change"
	kindAlive  kind = "alive"
	kindEnd    kind = "end"
)

// Use is an egress IP that is used.
type Use struct {
	// IP is the egress IP.
	IP string `json:"ip,omitempty"`
	// Group is the namespace that uses it, or "EgressIP/" with the name of the EgressIP.
	Group string `json:"group,omitempty"`
	// UID is that of the NetNamespace or EgressIP: one of the same name that was made later
	// is another one.
	UID   string `json:"uid,omitempty"`
	NetID uint32 `json:"netid,omitempty"`
	// Host is the HostSubnet from which traffic leaves; in a change, empty if it does no more.
	Host string `json:"host,omitempty"`
}

// Change is a change of what is used.
type Change struct {
	Use
	// From is the host before; empty if the egress IP was not used.
	From string `json:"from,omitempty"`
	// Reason is that of the status after the change.
	Reason string `json:"reason,omitempty"`
}

// line is one line of the record.
type line struct {
	Time    time.Time `json:"t"`
	Segment string    `json:"s"`
	// Number counts the lines of a segment, from 1.
	Number int  `json:"n"`
	Kind   kind `json:"k"`
	// Term and Writer are in begin alone: the term that the segment belongs to, and the replica.
	Term   string `json:"term,omitempty"`
	Writer string `json:"writer,omitempty"`
	Change
	// Since is since when something is held, as far as the term knows; nil for the time of the
	// line. Found: it was held before that.
	Since *time.Time `json:"since,omitempty"`
	Found bool       `json:"found,omitempty"`
}

// appendTo appends the line, with the end of the line.
func (l *line) appendTo(text []byte) []byte {
	encoded, err := json.Marshal(l)
	if err != nil { // a time outside the years 0 to 9999
		return text
	}
	return append(append(text, encoded...), '\n')
}

// parseLine reads a line without its end.
func parseLine(text []byte) (line, error) {
	var l line
	if err := json.Unmarshal(text, &l); err != nil {
		return line{}, fmt.Errorf("read a line of the record: %w", err)
	}
	if l.Segment == "" || l.Number < 1 || l.Time.IsZero() {
		return line{}, fmt.Errorf("read a line of the record: it has no segment, number or time: %.100s", text)
	}
	return l, nil
}
