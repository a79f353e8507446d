package main

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/egressip-operator/egressip-operator/test/matrix"
)

func TestLoadingOrder(t *testing.T) {
	t.Parallel()
	const dep = `kernel/net/9p/9pnet.ko: kernel/fs/netfs.ko
kernel/net/9p/9pnet_virtio.ko.xz: kernel/net/9p/9pnet.ko kernel/fs/netfs.ko
kernel/fs/9p/9p.ko: kernel/net/9p/9pnet.ko kernel/fs/netfs.ko
kernel/fs/netfs.ko:
kernel/crypto/crc32c-generic.ko:
`
	got, err := loadingOrder(dep, "crc32c_generic", "built_in", "9pnet_virtio", "9p")
	want := []string{
		"kernel/crypto/crc32c-generic.ko", "kernel/fs/netfs.ko", "kernel/net/9p/9pnet.ko", "kernel/net/9p/9pnet_virtio.ko.xz", "kernel/fs/9p/9p.ko",
	}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
	kept, err := without(want, dep, []string{"netfs"})
	if err != nil || !slices.Equal(kept, want[:1]) {
		t.Errorf("without netfs: %v, %v", kept, err)
	}
	if _, err := loadingOrder("no colon\n"); err == nil {
		t.Error("a broken list is taken")
	}
}

// The archive is read by another program of that format, where there is one.
func TestImageIsAnArchive(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "initramfs")
	var i image
	i.add("modules", modeDir, nil)
	i.add("modules/a.ko", modeFile, []byte("odd"))
	i.add("init", modeProgram, []byte("#!/bin/sh\n"))
	if err := i.write(path); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if len(content)%4 != 0 || !bytes.HasPrefix(content, []byte("070701")) {
		t.Errorf("%d bytes, %q", len(content), content[:6])
	}
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		return
	}
	cmd := exec.Command(cpio, "-it", "--quiet")
	cmd.Stdin = bytes.NewReader(content)
	out, err := cmd.CombinedOutput()
	if got := strings.Fields(string(out)); err != nil || !slices.Equal(got, []string{"modules", "modules/a.ko", "init"}) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestSources(t *testing.T) {
	t.Parallel()
	got := sources(`http://a/debian/ bookworm Debian main
http://a/debian/ bookworm-updates Debian main
http://a/security/ bookworm-security Debian main
http://b/ nodistro Others main
http://a/debian/ bookworm Debian contrib
`, []string{"bookworm", "bullseye"})
	const key = "deb [signed-by=" + keyring + "] "
	want := key + "http://a/debian/ bookworm main\n" + key + "http://a/debian/ bullseye main\n" +
		key + "http://a/security/ bookworm-security main\n" + key + "http://a/security/ bullseye-security main\n"
	if got != want {
		t.Errorf("got\n%s", got)
	}
}

func TestNewestIsByNumber(t *testing.T) {
	t.Parallel()
	names := []string{"linux-image-6.1.0-9-amd64", "linux-image-6.1.0-56-amd64", "linux-image-6.1.0-48-amd64"}
	if got := slices.MaxFunc(names, compareNumbers); got != names[1] {
		t.Error(got)
	}
}

func TestResultsAreCounted(t *testing.T) {
	t.Parallel()
	r := result{end: "exit status 1"}
	r.count(`=== RUN   TestA
--- PASS: TestA (0.01s)
=== RUN   TestB
    --- PASS: TestB/one (0.01s)
    --- FAIL: TestB/two (0.01s)
--- FAIL: TestB (0.02s)
--- SKIP: TestC (0.00s)
--- FAIL: TestD (0.00s)
FAIL
`)
	want := result{end: "exit status 1", passed: 1, skipped: 1, failed: []string{"TestB/two", "TestD"}}
	if diff := cmp.Diff(want, r, cmp.AllowUnexported(result{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if r.good() || (result{end: "0"}).good() || !(result{end: "0", passed: 1}).good() {
		t.Error("good is not what passed")
	}
	if got, want := (result{end: "cut off after 5m0s", passed: 3}).String(), "3 passed, cut off after 5m0s"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestComplaints(t *testing.T) {
	t.Parallel()
	got := complaints([]byte("[guest] up: 6.1\n[ 1.0] WARNING: CPU: 0 PID: 7 at net/core/dev.c:1\n[ 2.0] fine\n"))
	if len(got) != 1 || !strings.Contains(got[0], "net/core") {
		t.Errorf("%q", got)
	}
}

func TestChoose(t *testing.T) {
	t.Parallel()
	name := func(s suite) string { return s.name }
	got, err := choose(suites(), name, "programs,driver*")
	if err != nil || len(got) != 11 || got[0].name != "programs" {
		t.Errorf("%v, %v", got, err)
	}
	if all, err := choose(suites(), name, ""); err != nil || len(all) != len(suites()) {
		t.Errorf("%d, %v", len(all), err)
	}
	if _, err := choose(suites(), name, "nothing"); err == nil {
		t.Error("a name of nothing is taken")
	}
}

// Each suite runs in some variant, and its package and its cell are there.
func TestSuitesExist(t *testing.T) {
	t.Parallel()
	for _, s := range suites() {
		if _, err := os.Stat(filepath.Join("../..", s.pkg)); err != nil {
			t.Error(err)
		}
		if !slices.ContainsFunc(variants(), s.in) {
			t.Errorf("%s runs nowhere", s.name)
		}
		if _, err := matrix.Find(s.cell); s.isCluster() && err != nil {
			t.Errorf("%s: %v", s.name, err)
		}
	}
}

// The pattern names steps of a cell as the test program does.
func TestStory(t *testing.T) {
	t.Parallel()
	const want = "^TestCell$/^(a_namespace_leaves_with_its_egress_IP|no_namespace_beside_suffers|removing_leaves_every_node_as_it_was)$"
	if got := story(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}
