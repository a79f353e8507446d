package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

func TestFormats(t *testing.T) {
	t.Parallel()
	for written, want := range map[format]string{formatTable: "text", formatWide: "text", formatJSON: "{\n  \"a\": \"<b>\"\n}\n", formatYAML: "a: <b>\n"} {
		flags := pflag.NewFlagSet("", pflag.ContinueOnError)
		f := addFormat(flags, formatTable, formatWide, formatJSON, formatYAML)
		if err := flags.Parse([]string{"-o", string(written)}); err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		err := f.print(&out, map[string]string{"a": "<b>"}, func() error {
			_, err := out.WriteString("text")
			return err
		})
		if err != nil || out.String() != want {
			t.Errorf("%s: %v, %q", written, err, out.String())
		}
	}
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	addFormat(flags, formatTable, formatJSON)
	if err := flags.Parse([]string{"-o", "wide"}); err == nil || !strings.Contains(err.Error(), "it is one of table, json") {
		t.Error(err)
	}
}
