package dataplane

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// lockWait is how long, in seconds, a command waits for the lock that all
// users of legacy iptables share.
const lockWait = 5

// xtables runs the commands of one iptables backend. Whole tables are read and
// changed by iptables-save and iptables-restore: one process for each, and one
// transaction in the kernel for all rules of a table. go-iptables, which runs
// one process for each rule, serves for single commands.
type xtables struct {
	backend       Backend
	save, restore string
	single        *iptables.IPTables
}

// openXtables finds the commands of a backend. The error wraps
// exec.ErrNotFound where they are not installed.
func openXtables(b Backend) (*xtables, error) {
	name := "iptables-" + string(b)
	x := &xtables{backend: b}
	var err error
	if x.save, err = exec.LookPath(name + "-save"); err != nil {
		return nil, fmt.Errorf("find %s-save: %w", name, err)
	}
	if x.restore, err = exec.LookPath(name + "-restore"); err != nil {
		return nil, fmt.Errorf("find %s-restore: %w", name, err)
	}
	if x.single, err = iptables.New(iptables.Path(name), iptables.Timeout(lockWait)); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return x, nil
}

// openAllXtables opens the backends that are installed; at least one must be.
func openAllXtables() (map[Backend]*xtables, error) {
	opened := map[Backend]*xtables{}
	var missing []error
	for _, b := range []Backend{NFT, Legacy} {
		switch x, err := openXtables(b); {
		case err == nil:
			opened[b] = x
		case errors.Is(err, exec.ErrNotFound):
			missing = append(missing, err)
		default:
			return nil, err
		}
	}
	if len(opened) == 0 {
		return nil, fmt.Errorf("no iptables: %w", errors.Join(missing...))
	}
	return opened, nil
}

// observe reads all tables that exist. It makes none: naming a table would
// create it, and asking a backend that is not in use must leave no trace.
func (x *xtables) observe(ctx context.Context) (map[table]savedTable, error) {
	out, err := run(ctx, "", x.save)
	if err != nil {
		return nil, err
	}
	return parseSave(out), nil
}

// commit gives iptables-restore the script of one table.
func (x *xtables) commit(ctx context.Context, script string) error {
	_, err := run(ctx, script, x.restore, "--noflush", "--wait", fmt.Sprint(lockWait))
	return err
}

func run(ctx context.Context, stdin, name string, args ...string) (string, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
