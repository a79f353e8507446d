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
// one process for each command, serves to look at single chains.
type xtables struct {
	backend                Backend
	command, save, restore string
	single                 *iptables.IPTables
	// last is what observe saw, until commit changes it.
	last map[table]savedTable
}

// openXtables finds the commands of a backend. The error wraps
// exec.ErrNotFound where they are not installed.
func openXtables(b Backend) (*xtables, error) {
	name := "iptables-" + string(b)
	x := &xtables{backend: b}
	var err error
	if x.command, err = exec.LookPath(name); err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
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
	if saved, ok := x.glance(ctx); ok {
		return saved, nil
	}
	out, err := run(ctx, "", x.save)
	if err != nil {
		return nil, err
	}
	x.last = parseSave(out)
	return x.last, nil
}

// manyRules of kube-proxy in table nat make it worth while to look only where
// rules of ours are: at 20,000, saving them all takes a second.
const manyRules = 2000

// glance observes, in the nft backend, the chains alone in which our NAT rules
// were the last time. It is not ok where that may not tell all.
func (x *xtables) glance(ctx context.Context) (map[table]savedTable, bool) {
	nat := x.last[natTable]
	if x.backend != NFT || nat.foreign < manyRules {
		return nil, false
	}
	seen := savedTable{own: map[string][]string{}, base: map[string][]string{}, foreign: nat.foreign}
	for chain := range nat.own {
		rules, err := x.list(chain)
		if err != nil {
			return nil, false // it is gone
		}
		seen.own[chain] = rules
	}
	others := 0
	for chain := range nat.base {
		rules, err := x.list(chain)
		if err != nil {
			return nil, false
		}
		seen.base[chain] = rules
		for _, spec := range rules {
			if !leadsToOurs(spec) {
				others++
			}
		}
	}
	if others == 0 {
		return nil, false // kube-proxy's rules may have gone to the other backend
	}
	saved := map[table]savedTable{natTable: seen}
	for name := range x.last {
		if name == natTable {
			continue
		}
		// Saving one table would read them all.
		out, err := run(ctx, "", x.command, "--wait", fmt.Sprint(lockWait), "--table", string(name), "--list-rules")
		if err != nil {
			return nil, false
		}
		saved[name] = parseList(name, out)
	}
	return saved, true
}

// list gives the rules of a chain of table nat.
func (x *xtables) list(chain string) ([]string, error) {
	lines, err := x.single.List(string(natTable), chain)
	if err != nil {
		return nil, err
	}
	var rules []string
	for _, line := range lines {
		if spec, ok := strings.CutPrefix(line, "-A "+chain+" "); ok {
			rules = append(rules, strings.TrimRight(spec, " "))
		}
	}
	return rules, nil
}

// commit gives iptables-restore the script of one table.
func (x *xtables) commit(ctx context.Context, script string) error {
	x.last = nil
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
