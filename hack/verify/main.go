// Command verify runs commands that rewrite files of the repository, such as
// generators and formatters, and fails if they changed any: what they make is
// then not what is checked in.
//
//	verify COMMAND ["&&" COMMAND]...
package main

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	changed, err := verify(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "verify:", err)
		return 1
	}
	if len(changed) > 0 {
		fmt.Fprintf(os.Stderr, "verify: these files were not as they are generated, and are now:\n  %s\n", strings.Join(changed, "\n  "))
		return 1
	}
	fmt.Println("verify: everything is as it is generated")
	return 0
}

// verify runs the commands and returns the files that they changed.
func verify(args []string) ([]string, error) {
	before, err := sums()
	if err != nil {
		return nil, err
	}
	for len(args) > 0 {
		end := slices.Index(args, "&&")
		if end < 0 {
			end = len(args)
		}
		if end == 0 {
			return nil, errors.New("empty command")
		}
		cmd := exec.Command(args[0], args[1:end]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("%s: %w", strings.Join(args[:end], " "), err)
		}
		args = args[min(end+1, len(args)):]
	}
	after, err := sums()
	if err != nil {
		return nil, err
	}
	var changed []string
	for path, sum := range after {
		if before[path] != sum {
			changed = append(changed, path)
		}
	}
	for path := range before {
		if _, ok := after[path]; !ok {
			changed = append(changed, path+" (deleted)")
		}
	}
	slices.Sort(changed)
	return changed, nil
}

// sums returns the checksum of each file that git knows, or would add.
func sums() (map[string][sha256.Size]byte, error) {
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-files: %w", err)
	}
	found := map[string][sha256.Size]byte{}
	for name := range bytes.SplitSeq(out, []byte{0}) {
		path := string(name)
		if path == "" {
			continue
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		found[path] = sha256.Sum256(content)
	}
	return found, nil
}
