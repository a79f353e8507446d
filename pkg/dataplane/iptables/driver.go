package iptables

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"

	"github.com/egressip-operator/egressip-operator/pkg/dataplane/rules"
)

// lockWait is how long, in seconds, a command waits for the lock that all
// users of legacy iptables share.
const lockWait = 5

// Driver runs the commands of one backend. Whole tables are read and changed by
// iptables-save and iptables-restore: one process for each, and one transaction
// in the kernel for all rules of a table. go-iptables, which runs one process for
// each command, serves to read single chains.
type Driver struct {
	backend                Backend
	family                 Family
	command, save, restore string
	single                 *iptables.IPTables
	// last is what Observe saw, until Commit changes it.
	last Tables
}

// Open finds the commands of a backend for one family. The error wraps
// exec.ErrNotFound where they are not installed.
func Open(b Backend, f Family) (*Driver, error) {
	name := f.command(b)
	d := &Driver{backend: b, family: f}
	var err error
	if d.command, err = exec.LookPath(name); err != nil {
		return nil, fmt.Errorf("find %s: %w", name, err)
	}
	if d.save, err = exec.LookPath(name + "-save"); err != nil {
		return nil, fmt.Errorf("find %s-save: %w", name, err)
	}
	if d.restore, err = exec.LookPath(name + "-restore"); err != nil {
		return nil, fmt.Errorf("find %s-restore: %w", name, err)
	}
	if d.single, err = iptables.New(iptables.Path(name), iptables.Timeout(lockWait)); err != nil {
		return nil, fmt.Errorf("open %s: %w", name, err)
	}
	return d, nil
}

// RandomPorts reports whether rules can ask for random source ports, as from version 1.6.2
// on.
func (d *Driver) RandomPorts() bool { return d.single.HasRandomFully() }

// OpenInstalled opens the backends that are installed and work; at least one must.
func OpenInstalled() (map[Backend]*Driver, error) {
	opened := map[Backend]*Driver{}
	var missing []error
	for _, b := range Backends() {
		d, err := Open(b, IPv4)
		if err != nil {
			missing = append(missing, err)
			continue
		}
		opened[b] = d
	}
	if len(opened) == 0 {
		return nil, fmt.Errorf("no iptables: %w", errors.Join(missing...))
	}
	return opened, nil
}

// OpenIPv6 opens the backends that are installed for IPv6, and work.
func OpenIPv6() map[Backend]*Driver {
	opened := map[Backend]*Driver{}
	for _, b := range Backends() {
		if d, err := Open(b, IPv6); err == nil {
			opened[b] = d
		}
	}
	return opened
}

// Observe reads all tables that exist. It makes none: naming a table would
// create it, and asking a backend that is not in use must leave no trace.
func (d *Driver) Observe(ctx context.Context) (Tables, error) {
	if tables, ok := d.observeOwnChains(ctx); ok {
		return tables, nil
	}
	out, err := run(ctx, "", d.save)
	if err != nil {
		return nil, err
	}
	if unreadable := incompatible(out); len(unreadable) > 0 {
		d.last = nil
		return nil, fmt.Errorf("%s: table %s: %w", d.save, strings.Join(unreadable, ", "), ErrIncompatible)
	}
	d.last = parseSave(out)
	return d.last, nil
}

// ErrIncompatible is the error of a table in which others have rules that only nft can
// show. iptables takes such a table for absent.
var ErrIncompatible = errors.New("it has rules of others that iptables cannot read: " +
	"move them to a table of another name (nft list ruleset shows them), or use --backend=nftables")

// incompatible returns the names of the tables that a save reports in comments, and
// leaves out.
func incompatible(save string) (names []string) {
	for line := range strings.Lines(save) {
		if name, ok := strings.CutPrefix(line, "# Table `"); ok && strings.Contains(name, "' is incompatible") {
			name, _, _ = strings.Cut(name, "'")
			names = append(names, name)
		}
	}
	return names
}

// ManyRules is the number of other software's rules in table nat, mostly kube-proxy's, from
// which only single chains are read. At 20,000 rules, saving the whole table takes a second.
const ManyRules = 2000

// observeOwnChains reads, in table nat of the nft backend, only the chains that
// had rules of ours the last time. It returns false if that may miss something.
func (d *Driver) observeOwnChains(ctx context.Context) (Tables, bool) {
	nat := d.last[rules.NAT]
	if d.backend != NFT || d.family != IPv4 || nat.Foreign < ManyRules {
		return nil, false
	}
	seen := Table{Own: map[string][]string{}, Base: map[string][]string{}, Foreign: nat.Foreign}
	for chain := range nat.Own {
		specs, err := d.listNAT(chain)
		if err != nil {
			return nil, false // it is gone
		}
		seen.Own[chain] = specs
	}
	foreign := 0
	for chain := range nat.Base {
		specs, err := d.listNAT(chain)
		if err != nil {
			return nil, false
		}
		seen.Base[chain] = specs
		for _, spec := range specs {
			if !leadsToOwnChain(spec) {
				foreign++
			}
		}
	}
	if foreign == 0 {
		return nil, false // kube-proxy's rules may have gone to the other backend
	}
	tables := Tables{rules.NAT: seen}
	for name := range d.last {
		if name == rules.NAT {
			continue
		}
		// Saving one table would read them all.
		out, err := run(ctx, "", d.command, "--wait", strconv.Itoa(lockWait), "--table", string(name), "--list-rules")
		if err != nil {
			return nil, false // reading all says why
		}
		tables[name] = parseList(name, out)
	}
	return tables, true
}

// listNAT returns the rules of a chain of table nat.
func (d *Driver) listNAT(chain string) ([]string, error) {
	lines, err := d.single.List(string(rules.NAT), chain)
	if err != nil {
		return nil, err
	}
	var specs []string
	for _, line := range lines {
		if spec, ok := strings.CutPrefix(line, "-A "+chain+" "); ok {
			specs = append(specs, strings.TrimRight(spec, " "))
		}
	}
	return specs, nil
}

// Try has the kernel make rules for trial, in chains of ours that nothing leads to, and deletes
// these. The error says what it refused.
func (d *Driver) Try(ctx context.Context, r Rendered) error {
	const trial = rules.ChainPrefix + "TRY-"
	renamed := strings.NewReplacer(rules.ChainPrefix, trial)
	var errs []error
	for _, name := range rules.Stages() {
		table := RenderedTable{Chains: map[string][]string{}}
		for chain, specs := range r[name].Chains {
			list := make([]string, 0, len(specs))
			for _, spec := range specs {
				list = append(list, renamed.Replace(spec))
			}
			table.Chains[renamed.Replace(chain)] = list
		}
		there := Plan(name, Table{}, table)
		if there.Changes == 0 {
			continue
		}
		if err := d.Commit(ctx, there); err != nil {
			errs = append(errs, fmt.Errorf("try rules for table %s: %w", name, err))
			continue
		}
		errs = append(errs, d.Commit(ctx, Plan(name, there.After, RenderedTable{})))
	}
	return errors.Join(errs...)
}

// Commit makes the changes of a transaction.
func (d *Driver) Commit(ctx context.Context, t Transaction) error {
	d.last = nil
	_, err := run(ctx, t.Script, d.restore, "--noflush", "--wait", strconv.Itoa(lockWait))
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
