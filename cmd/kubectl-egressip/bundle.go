package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/discovery"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"
)

// bundleCommand returns the command that collects what a report of a bug needs.
func bundleCommand(out io.Writer, config clientcmd.ClientConfig) *cobra.Command {
	var file string
	var tail int64
	cmd := &cobra.Command{
		Use:   "bundle",
		Short: "Collect what a bug report needs in one file, without secrets",
		Long: `Collect what a bug report needs in one .tar.gz file, and list what is in it.

It has our objects, the parts of Nodes that decisions depend on, the workloads and pods of the operator, their
logs, the events about our objects, versions, and what status, explain, networks and check say. It has no
Secrets and ConfigMaps, no environment and no volumes of containers, and no annotations and labels but those
that the operator knows. Names of namespaces, nodes and pods, and addresses, are in it: look at it before you
publish it.

What could not be read is listed in errors.txt.`,
		Example: `  kubectl egressip bundle
  kubectl egressip bundle --file report.tar.gz --log-lines 20000`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&file, "file", "", "`file` to write, which must not exist; egressip-TIME.tar.gz by default")
	cmd.Flags().Int64Var(&tail, "log-lines", 5000, "how many of the last `lines` of each log are taken")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if file == "" {
			file = "egressip-" + time.Now().UTC().Format("20060102-150405") + ".tar.gz"
		}
		b := &bundle{lines: tail, root: strings.TrimSuffix(filepath.Base(file), ".tar.gz")}
		if err := b.collect(cmd.Context(), config); err != nil {
			return err
		}
		if err := b.write(file); err != nil {
			return err
		}
		return b.list(out, file)
	}
	return cmd
}

// bundle is a set of files.
type bundle struct {
	// lines limits each log. root is the directory in the archive.
	lines int64
	root  string
	files []bundledFile
	// errs are what could not be read.
	errs []error
}

type bundledFile struct {
	name string
	text []byte
}

func (b *bundle) add(name string, text []byte) {
	b.files = append(b.files, bundledFile{name, text})
}

// object adds a value as YAML.
func (b *bundle) object(name string, value any) {
	text, err := yaml.Marshal(value)
	if err != nil {
		b.errs = append(b.errs, fmt.Errorf("write %s: %w", name, err))
		return
	}
	b.add(name, text)
}

// printed adds what a command says.
func (b *bundle) printed(name string, text func(io.Writer) error) {
	var s strings.Builder
	if err := text(&s); err != nil {
		b.errs = append(b.errs, fmt.Errorf("%s: %w", name, err))
	}
	b.add(name, []byte(s.String()))
}

// collect reads the cluster. Only a cluster that cannot be reached at all is an error.
func (b *bundle) collect(ctx context.Context, config clientcmd.ClientConfig) error {
	cfg, err := config.ClientConfig()
	if err != nil {
		return err
	}
	versions, err := discovery.NewDiscoveryClientForConfig(cfg)
	if err != nil {
		return err
	}
	server, err := versions.ServerVersion()
	if err != nil {
		return fmt.Errorf("read the version of the API server: %w", err)
	}
	b.object("versions.yaml", map[string]string{
		"apiServer": server.String(), "plugin": pluginVersion(), "platform": runtime.GOOS + "/" + runtime.GOARCH,
	})
	c, err := newClient(config)
	if err != nil {
		return err
	}
	i, err := readInstallation(ctx, c, 100*time.Millisecond)
	if err != nil {
		return err
	}
	b.object("objects/netnamespaces.yaml", reducedAll(i.NetNamespaces))
	b.object("objects/hostsubnets.yaml", reducedAll(i.HostSubnets))
	b.object("objects/egressips.yaml", reducedAll(i.EgressIPs))
	b.pools(ctx, c)
	b.object("cluster/nodes.yaml", reducedNodes(i.nodes))
	b.object("cluster/pods.yaml", reducedPods(i.pods))
	b.object("cluster/workloads.yaml", reducedWorkloads(i))
	b.object("cluster/leases.yaml", reducedLeases(i.leases))
	b.object("cluster/definitions.yaml", reducedDefinitions(i.definitions))
	b.object("cluster/events.yaml", reducedEvents(i.events))
	found := i.check()
	b.printed("check.txt", found.print)
	b.printed("status.txt", func(w io.Writer) error { return status(w, i.Objects) })
	b.printed("explain.txt", func(w io.Writer) error { return explain(w, i.Objects, "") })
	b.printed("networks.txt", func(w io.Writer) error { return networks(w, i.Objects, readFacts(ctx, c)) })
	core, err := corev1client.NewForConfig(cfg)
	if err != nil {
		return err
	}
	b.logs(ctx, core, i)
	b.errors(i)
	return ctx.Err()
}

// errors adds what could not be read.
func (b *bundle) errors(i *installation) {
	var text strings.Builder
	for _, f := range i.unread {
		fmt.Fprintf(&text, "%s: %s\n", f.Object, f.Reason)
	}
	for _, err := range b.errs {
		fmt.Fprintln(&text, err)
	}
	if text.Len() == 0 {
		text.WriteString("everything could be read\n")
	}
	b.add("errors.txt", []byte(text.String()))
}

// write writes the archive. It replaces no file.
func (b *bundle) write(file string) (err error) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	zipped := gzip.NewWriter(f)
	archive := tar.NewWriter(zipped)
	now := time.Now()
	for _, file := range b.files {
		header := &tar.Header{Name: path.Join(b.root, file.name), Mode: 0o600, Size: int64(len(file.text)), ModTime: now}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(file.text); err != nil {
			return err
		}
	}
	return errors.Join(archive.Close(), zipped.Close())
}

// list prints what is in it.
func (b *bundle) list(out io.Writer, file string) error {
	table := newTable(out, "FILE", "BYTES")
	for _, f := range b.files {
		table.row(path.Join(b.root, f.name), len(f.text))
	}
	if err := table.flush(""); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nWrote %s. It has names and addresses of this cluster: look at it before you publish it.\n", file)
	return err
}
