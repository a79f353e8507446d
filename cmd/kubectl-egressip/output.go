package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// format is how a command prints: for people, or for programs.
type format string

// The formats. formatWide has more columns than formatTable.
const (
	formatTable format = "table"
	formatWide  format = "wide"
	formatJSON  format = "json"
	formatYAML  format = "yaml"
)

// addFormat adds flag -o, which takes the formats given.
func addFormat(flags *pflag.FlagSet, takes ...format) *format {
	f := &formatValue{format: formatTable, takes: takes}
	flags.VarP(f, "output", "o", "`format` of the output: "+f.list())
	return &f.format
}

// formatValue is the value of flag -o.
type formatValue struct {
	format
	takes []format
}

func (f *formatValue) Set(written string) error {
	if !slices.Contains(f.takes, format(written)) {
		return fmt.Errorf("it is one of %s", f.list())
	}
	f.format = format(written)
	return nil
}

func (f *formatValue) String() string { return string(f.format) }

func (f *formatValue) Type() string { return "format" }

func (f *formatValue) list() string {
	names := make([]string, 0, len(f.takes))
	for _, name := range f.takes {
		names = append(names, string(name))
	}
	return strings.Join(names, ", ")
}

// print writes a value as the format says; text writes it for people.
func (f format) print(w io.Writer, value any, text func() error) error {
	switch f {
	case formatJSON:
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		encoder.SetEscapeHTML(false)
		return encoder.Encode(value)
	case formatYAML:
		written, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = w.Write(written)
		return err
	case formatTable, formatWide:
	}
	return text()
}
