package conformance

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// operation is what a step of one kind must and may say, besides op, when,
// expect and note.
type operation struct{ needs, takes []string }

// operations are those of a section: the words of readingGuide.ops.
func operations(section Section) map[string]operation {
	name := []string{"name"}
	all := map[string]operation{
		"create-hostsubnet":   {needs: []string{"name", "hostIP"}, takes: []string{"egressIPs", "egressCIDRs"}},
		"patch-hostsubnet":    {needs: name, takes: []string{"hostIP", "egressIPs", "egressCIDRs"}},
		"delete-hostsubnet":   {needs: name},
		"create-netnamespace": {needs: []string{"name", "netid"}, takes: []string{"egressIPs"}},
		"patch-netnamespace":  {needs: name, takes: []string{"egressIPs", "netid"}},
		"delete-netnamespace": {needs: name},
		"create-node":         {needs: name, takes: []string{"ip", "capacity", "network", "capacityKind"}},
		"node-offline":        {needs: name},
		"node-online":         {needs: name},
		"reallocate":          {},
		"settle":              {},
		"restart":             {takes: []string{"order"}},
	}
	switch section {
	case Agents:
		all["interface"] = operation{takes: []string{"ifname", "present", "rules"}}
		all["agent-start"] = operation{}
		all["external-address-delete"] = operation{needs: []string{"ip"}}
		all["external-rules-flush"] = operation{}
	case Lifecycle:
		all["create-hostsubnet"] = operation{needs: []string{"name", "hostIP"}, takes: []string{"egressIPs", "egressCIDRs", "subnet", "annotations"}}
		all["create-namespace"] = operation{needs: name}
		all["delete-namespace"] = operation{needs: name}
		all["create-node"] = operation{needs: name, takes: []string{"ip", "capacity", "network", "capacityKind", "uid", "addresses"}}
		all["patch-node"] = operation{needs: name, takes: []string{"uid", "addresses"}}
		all["delete-node"] = operation{needs: name}
		all["offline-replace-node"] = operation{needs: name, takes: []string{"uid", "addresses"}}
		all["annotate-netnamespace"] = operation{needs: []string{"name", "key", "value"}}
		all["resync-namespaces"] = operation{}
		for op, rule := range all {
			// Only a request is some user's.
			if verb, _, _ := strings.Cut(op, "-"); slices.Contains([]string{"create", "patch", "delete", "annotate"}, verb) {
				rule.takes = append(slices.Clone(rule.takes), "asUser")
				all[op] = rule
			}
		}
	case States:
	}
	return all
}

// choices are the fields that hold one of a few words; an empty one is left out.
func choices(s Step) map[string][]string {
	allowed := map[string][]string{
		"when":         {s.When, Instant, Settled},
		"order":        {s.Order, NetNamespacesFirst, HostSubnetsFirst},
		"capacityKind": {s.CapacityKind, "ipv4", "ip"},
		"asUser":       {s.AsUser, ProjectAdmin},
	}
	maps.DeleteFunc(allowed, func(_ string, words []string) bool { return words[0] == "" })
	return allowed
}

// check returns what is not understood outside of the steps.
func (s Scenario) check() (problems []string) {
	if !slices.Contains([]string{"", FirstAvailable, LoadBalance}, s.Profile) {
		problems = append(problems, fmt.Sprintf("unknown profile %q", s.Profile))
	}
	return problems
}

// check returns what is not understood.
func (s HealthScenario) check() (problems []string) {
	if !slices.Contains([]string{"", "controller", "agent", "both"}, s.Role) {
		problems = append(problems, fmt.Sprintf("unknown role %q", s.Role))
	}
	for i, step := range s.Sequence {
		if !slices.Contains([]string{"", "online", "offline"}, step.Expect) {
			problems = append(problems, fmt.Sprintf("step %d: unknown judgement %q", i+1, step.Expect))
		}
	}
	return problems
}

// readStep reads one step and returns what is not understood in it.
func readStep(section Section, raw json.RawMessage) (step Step, problems []string) {
	note := func(format string, args ...any) { problems = append(problems, fmt.Sprintf(format, args...)) }
	if err := strict(raw, &step); err != nil {
		note("%s", plainly(err))
	}
	var given map[string]json.RawMessage
	if err := json.Unmarshal(raw, &given); err != nil {
		return step, problems // it is no object: said above
	}
	rule, known := operations(section)[step.Op]
	if !known {
		note("%s", unknownOperation(section, step.Op))
		return step, problems
	}
	for _, field := range rule.needs {
		if _, ok := given[field]; !ok {
			note("%s lacks %s", step.Op, field)
		}
	}
	common := []string{"op", "when", "expect", "note"}
	for _, field := range slices.Sorted(maps.Keys(given)) {
		if isStepField(field) && !slices.Contains(slices.Concat(common, rule.needs, rule.takes), field) {
			note("%s takes no %s", step.Op, field)
		}
	}
	words := choices(step)
	for _, field := range slices.Sorted(maps.Keys(words)) {
		if !slices.Contains(words[field][1:], words[field][0]) {
			note("unknown %s %q", field, words[field][0])
		}
	}
	if len(step.Expect) > 0 {
		for _, problem := range checkExpect(section, step.Expect) {
			note("expect: %s", problem)
		}
	}
	return step, problems
}

func unknownOperation(section Section, op string) string {
	for _, other := range []Section{States, Agents, Lifecycle} {
		if _, known := operations(other)[op]; known {
			return fmt.Sprintf("operation %q is none of %s", op, section)
		}
	}
	return fmt.Sprintf("unknown operation %q", op)
}

// isStepField reports whether the format knows a field of that name: one that
// it does not know is reported by the decoder already.
func isStepField(field string) bool {
	return strict([]byte(fmt.Sprintf("{%q: null}", field)), &Step{}) == nil
}

// checkExpect returns what is not understood in an expectation.
func checkExpect(section Section, raw json.RawMessage) []string {
	switch section {
	case Agents:
		var e AgentExpect
		return append(decodeProblem(raw, &e), e.problems()...)
	case Lifecycle:
		var e LifecycleExpect
		return append(decodeProblem(raw, &e), e.problems()...)
	case States:
		var e Expect
		return append(decodeProblem(raw, &e), e.problems()...)
	}
	return nil
}

func decodeProblem(raw json.RawMessage, into any) []string {
	if err := strict(raw, into); err != nil {
		return []string{plainly(err)}
	}
	return nil
}

func (e Expect) problems() (problems []string) {
	for what, values := range map[string]map[string]any{"assignments": e.Assignments, "active": e.Active, "hostsubnets": e.HostSubnets} {
		for name, value := range values {
			for _, problem := range checkValue(value) {
				problems = append(problems, fmt.Sprintf("%s of %s: %s", what, name, problem))
			}
		}
	}
	for ip, conflict := range e.Conflicts {
		if !slices.Contains(append(conflicts(), anyConflict), conflict) {
			problems = append(problems, fmt.Sprintf("conflicts of %s: unknown conflict %q", ip, conflict))
		}
	}
	slices.Sort(problems)
	return append(problems, checkConstraints(e.Constraints)...)
}

func (e AgentExpect) problems() (problems []string) {
	for name, path := range e.Paths {
		if problem := checkPath(path); problem != "" {
			problems = append(problems, fmt.Sprintf("path of %s: %s", name, problem))
		}
	}
	for _, inbound := range []*Inbound{e.InboundNew, e.InboundReply} {
		if inbound != nil && !slices.Contains([]string{"delivered", "refused", "dropped"}, inbound.Result) {
			problems = append(problems, fmt.Sprintf("unknown result %q", inbound.Result))
		}
	}
	slices.Sort(problems)
	return problems
}

// checkPath returns what is wrong with a path: "none", "dropped", or an object
// of kind local or remote.
func checkPath(path any) string {
	fields, isObject := path.(map[string]any)
	if !isObject {
		if path == "none" || path == "dropped" {
			return ""
		}
		return fmt.Sprintf("unknown path %q", word(path))
	}
	want := map[any]string{"local": "egressIPs", "remote": "nodes"}[fields["kind"]]
	if want == "" {
		return fmt.Sprintf("unknown kind %q", word(fields["kind"]))
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		if field != "kind" && field != want {
			return fmt.Sprintf("unknown field %q", field)
		}
	}
	if _, isList := fields[want].([]any); !isList {
		return fmt.Sprintf("%s lacks the list %s", fields["kind"], want)
	}
	return ""
}

func (e LifecycleExpect) problems() (problems []string) {
	both := []string{"egressIPs", fieldAnnotations, fieldAnnotationAbsent}
	known := map[string][]string{
		"netnamespace": append(both, "netname", "netid"),
		"hostsubnet":   append(both, "host", "hostIP", "subnet", "egressCIDRs"),
	}
	for kind, objects := range map[string]map[string]map[string]any{"netnamespace": e.NetNamespaces, "hostsubnet": e.HostSubnets} {
		for name, fields := range objects {
			for field, value := range fields {
				switch {
				case !slices.Contains(known[kind], field):
					problems = append(problems, fmt.Sprintf("%s %s: unknown field %q", kind, name, field))
				case field == fieldAnnotations || field == fieldAnnotationAbsent:
				default:
					for _, problem := range checkValue(value) {
						problems = append(problems, fmt.Sprintf("%s of %s %s: %s", field, kind, name, problem))
					}
				}
			}
		}
	}
	slices.Sort(problems)
	return append(problems, checkConstraints(e.Constraints)...)
}

// The fields of a LifecycleExpect that are no fields of the object.
const (
	fieldAnnotations      = "annotations"
	fieldAnnotationAbsent = "annotationAbsent"
)

// checkValue returns what is not understood in a value that Match compares.
func checkValue(value any) (problems []string) {
	switch value := value.(type) {
	case []any:
		for _, element := range value {
			if fields, isObject := element.(map[string]any); isObject && !isAssignment(fields) {
				problems = append(problems, fmt.Sprintf("the element %v is neither a word nor an assignment", element))
			}
		}
	case map[string]any:
		if len(value) == 0 {
			return []string{"an object without a predicate"}
		}
		for _, name := range slices.Sorted(maps.Keys(value)) {
			p, known := predicates()[name]
			if !known {
				problems = append(problems, fmt.Sprintf("unknown predicate %q", name))
				continue
			}
			for _, problem := range p.argument(value[name]) {
				problems = append(problems, fmt.Sprintf("predicate %s: %s", name, problem))
			}
		}
	}
	return problems
}

func checkConstraints(list []Constraint) (problems []string) {
	for _, c := range list {
		rule, known := constraints()[c.Kind]
		if !known {
			problems = append(problems, fmt.Sprintf("unknown constraint %q", c.Kind))
			continue
		}
		if lacks := rule.lacks(c); lacks != "" {
			problems = append(problems, fmt.Sprintf("constraint %s lacks %s", c.Kind, lacks))
		}
	}
	return problems
}
