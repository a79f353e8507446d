package main

import (
	"errors"
	"strings"
	"testing"
)

// TestCommandHelp: what a program says of itself and its commands, in Markdown.
func TestCommandHelp(t *testing.T) {
	t.Parallel()
	texts := map[string]string{
		"": "Does a thing.\n\nUsage:\n  tool [command]\n\nAvailable Commands:\n  do          Do it\n  help        Help\n\n" +
			"Flags:\n  -h, --help   help\n      --as string   who <it> is\n\nUse \"tool [command] --help\" for more.\n",
		"do": "Does it.\n\nUsage:\n  tool do [flags]\n\nExamples:\n  tool do   # now\n\nFlags:\n  -h, --help           help\n" +
			"  -v, --v verbosity    how much (default 3)\n      --fast           at once\n\nGlobal Flags:\n      --as string   who\n",
	}
	is, err := commandHelp(func(args ...string) (string, error) {
		text, ok := texts[strings.Join(args, " ")]
		if !ok {
			return "", errors.New("no such command")
		}
		return text, nil
	})
	const table = "| flag | default | meaning |\n|---|---|---|\n"
	const want = "Does a thing.\n\n```\ntool [command]\n```\n\n" + table + "| `--as=string` |  | who &lt;it> is |\n\n" +
		"## do\n\nDoes it.\n\n```\ntool do [flags]\n```\n\n```\ntool do   # now\n```\n\n" +
		table + "| `-v, --v=verbosity` | `3` | how much |\n| `--fast` |  | at once |\n\n"
	if err != nil || is != want {
		t.Errorf("%v\n%s, want\n%s", err, is, want)
	}
}
