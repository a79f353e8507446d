package install_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/egressip-operator/egressip-operator/internal/testenv"
	"github.com/egressip-operator/egressip-operator/internal/testenv/binaries"
)

// skipped are commands of the documentation that need more than an API server, each with what it
// needs. One that no page has any more fails.
func skipped() map[string]string {
	return map[string]string{
		`rollout status|helm test`:         "pods that run",
		`wait --for`:                       "a controller and agents",
		`get eip shop\.out`:                "a controller, which makes it",
		`drain|uncordon`:                   "a kubelet",
		`evacuate node\d( |$)|restore`:     "a controller, for whose work it waits",
		` exec | logs `:                    "a kubelet",
		`egressip page`:                    "a controller, whose page it shows",
		` --live`:                          "agents, which it asks",
		`egressip history`:                 "a controller, which has the record",
		`delete namespace egressip-system`: "a controller of namespaces",
	}
}

// stands are what stands for words in capitals.
func stands() *strings.Replacer {
	return strings.NewReplacer("NAMESPACE", "shop", "ADDRESS", "203.0.113.9", "PORT", "443", "pod/NAME", "pod/web-1", "pod/POD", "pod/web-1",
		"image.tag=TAG", "image.tag=dev", "NODE", "node3", "HOST", "node3", "-f FILE", "-f shop.yaml")
}

// block is the code of one fenced block, and the section that it is in.
type block struct{ section, code string }

// codeBlocks returns the blocks of a page that have no language, or that of a shell.
func codeBlocks(page string) (blocks []block) {
	section, inside, shell := "", false, false
	var code []string
	for line := range strings.Lines(page) {
		trimmed := strings.TrimSpace(line)
		switch {
		case strings.HasPrefix(trimmed, "```"):
			if inside && shell {
				blocks = append(blocks, block{section, strings.Join(code, "\n")})
			}
			inside, shell, code = !inside, slices.Contains([]string{"```", "```sh", "```bash"}, trimmed), nil
		case inside:
			code = append(code, strings.TrimRight(line, "\n"))
		case strings.HasPrefix(line, "## "):
			section = strings.TrimSpace(line[3:])
		}
	}
	return blocks
}

// commands returns the commands of a block: without prompts, what they answer, and comments. Lines
// that go on belong together, and so does what a command reads from the lines below it.
func commands(code string) (all []string) {
	prompts := regexp.MustCompile(`(?m)^ *\$ `).MatchString(code)
	here := regexp.MustCompile(`<<-?'?(\w+)'?`)
	lines := strings.Split(code, "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		if line == "" || strings.HasPrefix(line, "#") || prompts && !strings.HasPrefix(line, "$ ") {
			continue
		}
		command := strings.TrimPrefix(line, "$ ")
		for goesOn(command) && i+1 < len(lines) {
			i++
			command += "\n" + lines[i]
		}
		if m := here.FindStringSubmatch(command); m != nil {
			for i+1 < len(lines) {
				i++
				command += "\n" + lines[i]
				if strings.TrimSpace(lines[i]) == m[1] {
					break
				}
			}
		}
		all = append(all, command)
	}
	return all
}

// goesOn reports whether a command goes on in the next line.
func goesOn(command string) bool {
	last := command[strings.LastIndex(command, "\n")+1:]
	last, _, _ = strings.Cut(last, " # ")
	last = strings.TrimSpace(last)
	return strings.HasSuffix(last, `\`) || strings.HasSuffix(last, "|") || strings.HasSuffix(last, "&&")
}

// reader plays what a reader of the documentation does.
type reader struct {
	*cluster
	// dir has the parts of the repository that commands name.
	dir, path string
	used      map[string]bool
	ran       int
	// then is done after the command that is its key.
	then map[string]func()
}

func newReader(t *testing.T) *reader {
	t.Helper()
	r := &reader{cluster: startCluster(t), dir: t.TempDir(), used: make(map[string]bool)}
	for _, name := range []string{"charts", "config"} {
		target, err := filepath.Abs(filepath.Join("../..", name))
		if err == nil {
			err = os.Symlink(target, filepath.Join(r.dir, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	helm, err := binaries.Dir(t.Context(), "helm")
	if err != nil {
		t.Fatal(err)
	}
	plugin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", plugin, "../../cmd/kubectl-egressip")
	build.Env = append(os.Environ(), "CGO_ENABLED=0") // as everything else is compiled, also by the race detector's run
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the plugin: %v\n%s", err, out)
	}
	r.path = strings.Join([]string{plugin, filepath.Dir(r.kubectl), helm, os.Getenv("PATH")}, ":")
	r.write(t, "shop.yaml", `apiVersion: network.openshift.io/v1
kind: NetNamespace
metadata: {name: shop}
egressIPs: [192.168.7.200]
`)
	return r
}

func (r *reader) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// shell runs a command as a reader does.
func (r *reader) shell(t *testing.T, command string) (string, error) {
	t.Helper()
	// A command that waits for something that is not here must not wait for the test's end.
	ctx, cancel := context.WithTimeout(t.Context(), testenv.Stretch(time.Minute))
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-o", "pipefail", "-c", command)
	cmd.Dir = r.dir
	cmd.Env = []string{"PATH=" + r.path, "KUBECONFIG=" + r.kubeconfig, "HOME=" + r.dir}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// play runs the commands of a page for kubectl and helm, those of the sections that are asked for.
func (r *reader) play(t *testing.T, name string, asked func(section string) bool) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join("../..", name))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range codeBlocks(string(page)) {
		if !asked(b.section) {
			continue
		}
		for _, command := range commands(b.code) {
			if !strings.HasPrefix(command, "kubectl ") && !strings.HasPrefix(command, "helm ") {
				continue
			}
			r.run(t, name+", "+b.section, stands().Replace(command))
		}
	}
}

func (r *reader) run(t *testing.T, where, command string) {
	t.Helper()
	for pattern := range skipped() {
		if regexp.MustCompile(pattern).MatchString(command) {
			r.used[pattern] = true
			return
		}
	}
	r.ran++
	out, err := r.shell(t, command)
	var exit *exec.ExitError
	if errors.As(err, &exit) && slices.Contains([]int{2, 3}, exit.ExitCode()) && regexp.MustCompile(`kubectl egressip (check|plan|evacuate)`).MatchString(command) {
		return // findings: nothing runs here
	}
	if then := r.then[command]; then != nil {
		then()
	}
	if err != nil {
		t.Errorf("%s: this does not work:\n%s\n%v\n%s", where, command, err, out)
	}
}

// furnish makes what readers have before they use the operator: Nodes, a namespace with a pod, and
// what the controller makes of these.
func (r *reader) furnish(t *testing.T) {
	t.Helper()
	testenv.Until(t, "the kinds are served", func() bool {
		_, err := r.shell(t, "kubectl get netnamespaces,hostsubnets,eip,eippool,eipreq -A")
		return err == nil
	})
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n")
	b.WriteString("---\napiVersion: network.openshift.io/v1\nkind: NetNamespace\nmetadata: {name: shop}\nnetname: shop\nnetid: 6392175\n")
	b.WriteString("---\napiVersion: v1\nkind: ServiceAccount\nmetadata: {name: default, namespace: shop}\n")
	b.WriteString("---\napiVersion: v1\nkind: Pod\nmetadata: {name: web-1, namespace: shop}\nspec: {nodeName: node1, containers: [{name: web, image: none}]}\n")
	for i := range 3 {
		fmt.Fprintf(&b, "---\napiVersion: v1\nkind: Node\nmetadata: {name: node%[1]d}\n"+
			"---\napiVersion: network.openshift.io/v1\nkind: HostSubnet\nmetadata: {name: node%[1]d}\nhost: node%[1]d\nhostIP: 192.168.7.1%[1]d\n", i+1)
	}
	r.write(t, "furniture.yaml", b.String())
	if out, err := r.shell(t, "kubectl apply -f furniture.yaml"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestDocumentedCommands: the commands for kubectl and helm that the documentation has work, in its
// order, on a real API server: the install, the use, what a reader looks at, and the removal.
func TestDocumentedCommands(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	section := func(name string) func(string) bool { return func(s string) bool { return s == name } }
	r.play(t, "README.md", section("Install"))
	if t.Failed() {
		return
	}
	r.furnish(t)
	r.play(t, "README.md", func(s string) bool { return !slices.Contains([]string{"Quick start", "Install", "Uninstall"}, s) })
	all := func(string) bool { return true }
	for _, page := range []string{
		"docs/troubleshooting.md", "docs/guides/README.md", "docs/guides/firewalls.md", "docs/guides/maintenance.md", "docs/reference/events.md",
	} {
		r.play(t, page, all)
	}
	r.play(t, "README.md", section("Uninstall"))
	t.Logf("%d commands", r.ran)
	if r.ran < 60 {
		t.Errorf("%d commands only", r.ran)
	}
	for pattern, needs := range skipped() {
		if !r.used[pattern] {
			t.Errorf("no page has a command %q any more (it needs %s)", pattern, needs)
		}
	}
}

// TestQuickStart: the quick start of the README works, on an API server where nothing is yet.
func TestQuickStart(t *testing.T) {
	t.Parallel()
	r := newReader(t)
	made := false
	r.then = map[string]func(){"kubectl create namespace shop": func() { made = true; r.furnish(t) }}
	r.play(t, "README.md", func(section string) bool { return section == "Quick start" })
	if !made || r.ran < 7 {
		t.Errorf("%d commands only; made namespace shop: %t", r.ran, made)
	}
}

// TestCommandsOfBlocks: prompts, answers, comments, lines that go on, and input below a command.
func TestCommandsOfBlocks(t *testing.T) {
	t.Parallel()
	const page = "## One\n```\n# a comment\nkubectl a \\\n  b   # and a comment\nkubectl c |\n  xargs d\n```\n" +
		"## Two\n1. text\n   ```\n   $ kubectl e\n   answer\n   $ kubectl f <<EOF\n```\n```yaml\nkubectl: no\n```\n```\nkubectl g -f - <<EOF\nx\nEOF\nkubectl h\n```\n"
	var got []string
	for _, b := range codeBlocks(page) {
		for _, c := range commands(b.code) {
			got = append(got, b.section+": "+c)
		}
	}
	want := []string{
		"One: kubectl a \\\n  b   # and a comment", "One: kubectl c |\n  xargs d",
		"Two: kubectl e", "Two: kubectl f <<EOF", "Two: kubectl g -f - <<EOF\nx\nEOF", "Two: kubectl h",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
