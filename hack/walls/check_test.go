package walls

import (
	"errors"
	"strings"
	"testing"
)

const page = `# A page

<!-- walls -->
| room | package | may reach | must never reach |
| --- | --- | --- | --- |
| main | ` + "`.`" + ` | brain, kernel, drivers, values | - |
| brain | ` + "`pkg/brain`" + ` | - | ` + "`os/exec`, `k8s.io`" + ` |
| kernel | ` + "`pkg/kernel`" + ` | drivers, values | - |
| drivers | ` + "`pkg/kernel/*`" + ` | values | - |
| values | ` + "`pkg/kernel/values`" + ` | - | - |
<!-- /walls -->
`

// given: packages and their imports; then exactly the imports that break a rule are
// reported, with the way that leads there.
func TestCheck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(Imports)
		want   []string
	}{
		"all in order": {func(Imports) {}, nil},
		"a forbidden package": {
			func(i Imports) { i["example.com/m/pkg/brain"] = []string{"os/exec"} },
			[]string{"room brain must not reach os/exec: pkg/brain -> os/exec"},
		},
		"a forbidden module, through others, reported once": {
			func(i Imports) {
				i["example.com/m/pkg/brain"] = []string{"other.org/a"}
				i["other.org/a"] = []string{"k8s.io/b", "k8s.io/c"}
			},
			[]string{"room brain must not reach k8s.io: pkg/brain -> other.org/a -> k8s.io/b"},
		},
		"a package whose name only begins like a forbidden one": {
			func(i Imports) { i["example.com/m/pkg/brain"] = []string{"k8s.iota/b"} },
			nil,
		},
		"another room": {
			func(i Imports) { i["example.com/m/pkg/brain"] = []string{"example.com/m/pkg/kernel/rules"} },
			[]string{"room brain must not reach drivers: pkg/brain -> pkg/kernel/rules"},
		},
		"from below upwards": {
			func(i Imports) { i["example.com/m/pkg/kernel/rules"] = []string{"example.com/m/pkg/kernel"} },
			[]string{"room drivers must not reach kernel: pkg/kernel/rules -> pkg/kernel"},
		},
		"one driver from another": {
			func(i Imports) {
				i["example.com/m/pkg/kernel/routes"] = []string{"example.com/m/pkg/kernel/rules", "example.com/m/pkg/kernel/values"}
			},
			[]string{"room drivers must not reach pkg/kernel/rules: pkg/kernel/routes -> pkg/kernel/rules"},
		},
		"a driver from its own helper": {
			func(i Imports) {
				i["example.com/m/pkg/kernel/rules"] = []string{"example.com/m/pkg/kernel/rules/helper"}
				i["example.com/m/pkg/kernel/rules/helper"] = nil
			},
			nil,
		},
		"a package in no room": {
			func(i Imports) { i["example.com/m/pkg/new"] = nil },
			[]string{"package pkg/new stands in no room"},
		},
		"a room without packages": {
			func(i Imports) { delete(i, "example.com/m/pkg/kernel/rules"); i["example.com/m/pkg/kernel"] = nil },
			[]string{"room drivers: there is no package pkg/kernel/*"},
		},
		"a rule that nothing can break": {
			func(i Imports) { delete(i, "os/exec"); i["example.com/m/pkg/kernel"] = nil },
			[]string{"room brain must never reach os/exec, which no package of the module reaches: mend or delete it"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			imports := Imports{
				"example.com/m":                   {"example.com/m/pkg/brain", "example.com/m/pkg/kernel", "k8s.io/b"},
				"example.com/m/pkg/brain":         {"net/netip"},
				"example.com/m/pkg/kernel":        {"example.com/m/pkg/kernel/rules", "os/exec"},
				"example.com/m/pkg/kernel/rules":  {"net/netip"},
				"example.com/m/pkg/kernel/values": nil,
				"os/exec":                         nil, "net/netip": nil, "k8s.io/b": nil, "k8s.io/c": nil,
			}
			c.change(imports)
			rooms, err := Parse(page)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := join(Check("example.com/m", rooms, imports)), strings.Join(c.want, "\n"); got != want {
				t.Errorf("reported:\n%s\nwant:\n%s", got, want)
			}
		})
	}
}

// given: a page with a mistake in its table; when it is read, then the error names it.
func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ old, with, want string }{
		"no table":              {begin, "", "the page has no " + begin},
		"no end":                {end, "", "the page has no " + end},
		"a column too few":      {"| drivers, values | - |", "| drivers, values |", "no row of four columns"},
		"a room twice":          {"| kernel |", "| brain |", "room brain stands in the table twice"},
		"a package twice":       {"`pkg/kernel/*`", "`pkg/kernel`", "pkg/kernel belongs to the rooms kernel and drivers"},
		"a room without a row":  {"| brain, kernel, drivers, values |", "| cellar |", "may reach cellar, which is no room"},
		"a line between":        {"| brain |", "text\n| brain |", `"text" is no row`},
		"a room that is a path": {"| drivers, values | - |", "| pkg/kernel/rules | - |", "may reach pkg/kernel/rules, which is no room"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			changed := strings.Replace(page, c.old, c.with, 1)
			if changed == page {
				t.Fatalf("%q is not in the page", c.old)
			}
			if _, err := Parse(changed); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func join(errs []error) string {
	if err := errors.Join(errs...); err != nil {
		return err.Error()
	}
	return ""
}
