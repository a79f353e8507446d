package conformance

import (
	"fmt"
	"slices"
)

// Values are what Match compares a value of the corpus with.
type Values struct {
	// Got is our value: nil, a string, a number or a list of strings. An active
	// assignment is written "ip@node".
	Got any
	// Before is our value before the step.
	Before any
	// Of returns our value of another object of the same kind.
	Of func(name string) any
}

// Match compares a value of the corpus with ours and returns "" where they
// match, otherwise what is wrong. Lists are compared as sets.
func Match(want any, v Values) string {
	switch want := want.(type) {
	case map[string]any:
		return matchPredicates(want, v)
	case []any:
		list, ok := v.Got.([]string)
		if !ok || !sameSet(words(want), list) {
			return differ(want, v.Got)
		}
		return ""
	default:
		if word(want) != word(v.Got) {
			return differ(want, v.Got)
		}
		return ""
	}
}

func differ(want, got any) string {
	return fmt.Sprintf("want %v, got %v", readable(want), readable(got))
}

// readable is a value without an exponent.
func readable(value any) any {
	if _, isNumber := value.(float64); isNumber {
		return word(value)
	}
	return value
}

// word writes a single value; an assignment as "ip@node".
func word(value any) string {
	switch value := value.(type) {
	case nil:
		return "null"
	case float64:
		return fmt.Sprintf("%.0f", value)
	case map[string]any:
		if isAssignment(value) {
			return fmt.Sprintf("%v@%v", value["egressIP"], value["node"])
		}
	}
	return fmt.Sprint(value)
}

func words(list []any) []string {
	all := make([]string, 0, len(list))
	for _, element := range list {
		all = append(all, word(element))
	}
	return all
}

// isAssignment reports whether an object is an egress IP with its node.
func isAssignment(object map[string]any) bool {
	_, ip := object["egressIP"]
	_, node := object["node"]
	return ip && node && len(object) == 2
}

// predicate is a condition on a single value.
type predicate struct {
	// argument returns what is wrong with an argument.
	argument func(argument any) []string
	holds    func(argument any, v Values) bool
}

// predicates are the words that start with a brace in readingGuide.predicates.
func predicates() map[string]predicate {
	return map[string]predicate{
		"oneOf":       {argument: isChoices, holds: oneOf},
		"size":        {argument: isNumber, holds: func(n any, v Values) bool { return between(length(v.Got), n, n) }},
		"sizeBetween": {argument: isRange, holds: func(r any, v Values) bool { return inRange(length(v.Got), r) }},
		"between":     {argument: isRange, holds: func(r any, v Values) bool { return inRange(number(v.Got), r) }},
		"excludes":    {argument: isList, holds: func(list any, v Values) bool { return !holdsAny(list, v.Got, true) }},
		"contains":    {argument: isList, holds: func(list any, v Values) bool { return !holdsAny(list, v.Got, false) }},
		"unchanged":   {argument: isTrue, holds: func(_ any, v Values) bool { return same(v.Got, v.Before) }},
		"sameAs":      {argument: isName, holds: func(name any, v Values) bool { return v.Of != nil && same(v.Got, v.Of(word(name))) }},
		"nonEmpty":    {argument: isTrue, holds: func(_ any, v Values) bool { return nonEmpty(v.Got) }},
	}
}

// matchPredicates wants all the predicates to hold.
func matchPredicates(want map[string]any, v Values) string {
	known := predicates()
	for name, argument := range sorted(want) {
		p, ok := known[name]
		if !ok {
			return fmt.Sprintf("unknown predicate %q", name)
		}
		if !p.holds(argument, v) {
			return differ(fmt.Sprintf("%s %v", name, argument), v.Got)
		}
	}
	return ""
}

func oneOf(argument any, v Values) bool {
	choices, _ := argument.([]any)
	return slices.ContainsFunc(choices, func(choice any) bool { return Match(choice, v) == "" })
}

// holdsAny reports whether some element of the argument is, or is not, in a list.
func holdsAny(argument, got any, there bool) bool {
	elements, _ := argument.([]any)
	list, _ := got.([]string)
	return slices.ContainsFunc(elements, func(e any) bool { return slices.Contains(list, word(e)) == there })
}

// same compares two values of ours, lists as sets.
func same(a, b any) bool {
	first, isList := a.([]string)
	second, isOther := b.([]string)
	if isList && isOther {
		return sameSet(first, second)
	}
	return fmt.Sprint(a) == fmt.Sprint(b)
}

func nonEmpty(value any) bool {
	list, isList := value.([]string)
	return value != nil && word(value) != "" && (!isList || len(list) > 0)
}

// length is the number of elements of a list, and -1 for anything else.
func length(value any) float64 {
	list, isList := value.([]string)
	if !isList {
		return -1
	}
	return float64(len(list))
}

// number is a number of the corpus or of ours, and -1 for anything else.
func number(value any) float64 {
	switch value := value.(type) {
	case float64:
		return value
	case int:
		return float64(value)
	case uint32:
		return float64(value)
	}
	return -1
}

func between(value float64, least, most any) bool {
	return value >= 0 && number(least) <= value && value <= number(most)
}

func inRange(value float64, bounds any) bool {
	list, ok := bounds.([]any)
	return ok && len(list) == 2 && between(value, list[0], list[1])
}

func isNumber(argument any) []string {
	if _, ok := argument.(float64); !ok {
		return []string{fmt.Sprintf("%v is no number", argument)}
	}
	return nil
}

func isRange(argument any) []string {
	list, _ := argument.([]any)
	if len(list) != 2 || isNumber(list[0]) != nil || isNumber(list[1]) != nil {
		return []string{fmt.Sprintf("%v is not a pair of numbers", argument)}
	}
	return nil
}

func isList(argument any) []string {
	if _, ok := argument.([]any); !ok {
		return []string{fmt.Sprintf("%v is no list", argument)}
	}
	return checkValue(argument)
}

// isChoices: each choice is a value or a predicate itself.
func isChoices(argument any) (problems []string) {
	choices, ok := argument.([]any)
	if !ok {
		return []string{fmt.Sprintf("%v is no list", argument)}
	}
	for _, choice := range choices {
		problems = append(problems, checkValue(choice)...)
	}
	return problems
}

func isTrue(argument any) []string {
	if argument != true {
		return []string{fmt.Sprintf("%v is not true", argument)}
	}
	return nil
}

func isName(argument any) []string {
	if _, ok := argument.(string); !ok {
		return []string{fmt.Sprintf("%v is no name", argument)}
	}
	return nil
}
