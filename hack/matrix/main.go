// Command matrix tries the operator on each combination of CNI, kube-proxy and backends: it
// plays TestCell of test/e2e on each cell of test/matrix, and writes what came of it into
// test/matrix/results.json and docs/compatibility-matrix.md, cell by cell.
//
//	matrix              play all cells but those that need the kernel of a virtual machine
//	matrix -cell NAME   play one, as in "flannel+nftables"; separated by commas, several
//	matrix -list        print the names of the cells
//	matrix -table       write the table again, from the results that are there
//	matrix -log FILE -cell NAME
//	                    take the result of a cell from the output of its test
//	matrix -log FILE -cell NAME -kernel VERSION
//	                    the same for a test that ran in a virtual machine, such as one of test/kernels
//
// It needs root, and build/image.tar from "make image".
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
	"github.com/egressip-operator/egressip-operator/test/matrix"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	flags := flag.NewFlagSet("matrix", flag.ContinueOnError)
	names := flags.String("cell", "", "cells to play, separated by commas; all of them by default")
	list := flags.Bool("list", false, "print the names of the cells")
	table := flags.Bool("table", false, "write the table again, and play nothing")
	log := flags.String("log", "", "the output of a cell's test, instead of playing it")
	kernel := flags.String("kernel", "", "the kernel's version, if the test did not run on this machine's")
	if flags.Parse(args) != nil {
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	cells := matrix.Cells()
	if *list {
		for _, c := range cells {
			fmt.Println(c.Name())
		}
		return 0
	}
	err := choose(&cells, *names)
	if err == nil {
		err = play(ctx, cells, *table, *log, *kernel)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "matrix:", err)
		return 1
	}
	return 0
}

// choose replaces all cells by the named ones, or by those that this machine's kernel can have.
func choose(cells *[]matrix.Cell, names string) error {
	if names == "" {
		*cells = slices.DeleteFunc(*cells, matrix.Cell.Elsewhere)
		return nil
	}
	var chosen []matrix.Cell
	for name := range strings.SplitSeq(names, ",") {
		c, err := matrix.Find(name)
		if err != nil {
			return err
		}
		chosen = append(chosen, c)
	}
	*cells = chosen
	return nil
}

// play plays cells one after the other. Each result is written when it is there: what comes
// after may fail.
func play(ctx context.Context, cells []matrix.Cell, tableOnly bool, log, kernel string) error {
	root, err := binaries.Repository()
	if err != nil {
		return err
	}
	if tableOnly {
		results, err := matrix.Read(root)
		if err != nil {
			return err
		}
		return matrix.Write(root, results)
	}
	if log != "" && len(cells) != 1 {
		return errors.New("-log needs one -cell")
	}
	var failed []string
	for _, c := range cells {
		output, began := []byte(nil), time.Now()
		if log != "" {
			if output, err = os.ReadFile(log); err != nil {
				return err
			}
		} else if output, err = test(ctx, root, c); err != nil && ctx.Err() != nil {
			return err
		}
		r, err := describe(ctx, root, c)
		if err != nil {
			return err
		}
		r.Kernel = cmp.Or(kernel, r.Kernel)
		r.Steps = matrix.Outcomes(string(output))
		r.Seconds = int(time.Since(began).Seconds())
		if !r.Passed() {
			failed = append(failed, c.Name())
		}
		results, err := matrix.Read(root)
		if err != nil {
			return err
		}
		if err := matrix.Write(root, results, r); err != nil {
			return err
		}
		fmt.Printf("%s: %s\n", c.Name(), r)
	}
	if len(failed) > 0 {
		return fmt.Errorf("not every step passed on %s", strings.Join(failed, ", "))
	}
	return nil
}

// test plays one cell, and returns what the test said. Its log is kept in build/.
func test(ctx context.Context, root string, c matrix.Cell) ([]byte, error) {
	path := filepath.Join(root, "build", "matrix-"+c.Name()+".log")
	file, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	fmt.Printf("%s: its log is %s\n", c.Name(), path)
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "test", "-timeout", "30m", "-count=1", "-v", "-run", "TestCell$", "./test/e2e")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), matrix.Variable+"="+c.Name())
	cmd.Stdout = io.MultiWriter(file, &output)
	cmd.Stderr = cmd.Stdout
	// Interrupted, the test takes its test bed down.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	err = errors.Join(cmd.Run(), file.Sync())
	return output.Bytes(), err
}

// describe says of what versions the cell is.
func describe(ctx context.Context, root string, c matrix.Cell) (matrix.Result, error) {
	r := matrix.Result{Cell: c.Name(), Date: time.Now().UTC().Format(time.DateOnly)}
	ask := func(args ...string) string {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		cmd.Dir = root
		out, err := cmd.Output()
		if err != nil {
			return "unknown"
		}
		return strings.TrimSpace(string(out))
	}
	r.Commit = ask("git", "describe", "--tags", "--always", "--dirty")
	// containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u1
	if words := strings.Fields(ask("containerd", "--version")); len(words) > 2 {
		r.Containerd = words[2]
	}
	r.Kernel, _, _ = strings.Cut(ask("uname", "-r"), "-")
	r.CNI = ask("dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins")
	var errs []error
	if program := c.CNI.Program(); program != "" {
		var err error
		r.CNI, err = binaries.Version(program)
		errs = append(errs, err)
	}
	var err error
	r.Kubernetes, err = binaries.Version("kubelet")
	errs = slices.Insert(errs, 0, err)
	return r, errors.Join(errs...)
}
