package main

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// TestWatch: what is printed is what has changed, and an error does not end it.
func TestWatch(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	answers := []string{"a\n", "a\n", "", "b\n"}
	var out bytes.Buffer
	f := formatTable
	err := watch(ctx, &out, statusOptions{format: &f, every: time.Microsecond}, func(context.Context) (string, error) {
		if len(answers) == 0 {
			cancel()
			return "", ctx.Err()
		}
		answer := answers[0]
		answers = answers[1:]
		if answer == "" {
			return "", errors.New("away")
		}
		return answer, nil
	})
	var printed []string
	for i, line := range strings.Split(strings.TrimSpace(out.String()), "\n") {
		if i%3 == 1 {
			printed = append(printed, line)
		}
	}
	if got := strings.Join(printed, " "); err != nil || got != "a error: away b" {
		t.Errorf("%v: %s in\n%s", err, got, out.String())
	}
}

// TestColors: states are painted, names are not, and nothing is where no terminal is.
func TestColors(t *testing.T) {
	t.Parallel()
	f := formatTable
	const text = "True    10.1.8.200(Active),10.1.8.201(HostOffline)   False\n"
	painted := statusOptions{format: &f, paint: true}.colored(text)
	want := "True    10.1.8.200(" + green + "Active" + noColor + "),10.1.8.201(" + red + "HostOffline" + noColor + ")   " + red + "False" + noColor + "\n"
	if painted != want {
		t.Errorf("%q, want %q", painted, want)
	}
	if plain := (statusOptions{format: &f}).colored(text); plain != text {
		t.Errorf("%q", plain)
	}
	if f = formatJSON; (statusOptions{format: &f, paint: true}).colored(text) != text {
		t.Error("JSON is painted")
	}
	if paints(&bytes.Buffer{}) {
		t.Error("colours are wanted in a file")
	}
}
