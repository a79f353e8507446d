package walls

import (
	"fmt"
	"slices"
	"strings"
)

// Imports maps the import path of each package, those of the standard library and
// of other modules included, to the import paths of what its production code
// imports.
type Imports map[string][]string

// Check returns what in the packages of module breaks the rules of the rooms, and
// which rules no longer fit the packages, in a fixed order.
func Check(module string, rooms []Room, imports Imports) []error {
	b := building{module: module, rooms: rooms, imports: imports}
	var errs []error
	occupied := map[string]bool{}
	for _, pkg := range b.packages() {
		room, pattern, ok := b.roomOf(pkg)
		if !ok {
			errs = append(errs, fmt.Errorf("package %s stands in no room", b.short(pkg)))
			continue
		}
		occupied[pattern] = true
		errs = append(errs, b.check(pkg, room)...)
	}
	for _, room := range rooms {
		for _, pattern := range room.Packages {
			if !occupied[pattern] {
				errs = append(errs, fmt.Errorf("room %s: there is no package %s", room.Name, pattern))
			}
		}
		for _, never := range room.NeverReach {
			if !b.known(never) {
				errs = append(errs, fmt.Errorf("room %s must never reach %s, which no package of the module reaches: "+
					"mend or delete it", room.Name, never))
			}
		}
	}
	return errs
}

// building is what Check works on.
type building struct {
	module  string
	rooms   []Room
	imports Imports
}

// packages returns the import paths of the module's own packages, sorted.
func (b building) packages() (own []string) {
	for pkg := range b.imports {
		if b.own(pkg) {
			own = append(own, pkg)
		}
	}
	slices.Sort(own)
	return own
}

// check returns what the package of a room reaches against the rules.
func (b building) check(pkg string, room Room) (errs []error) {
	chains := b.reach(pkg)
	targets := make([]string, 0, len(chains))
	for target := range chains {
		targets = append(targets, target)
	}
	slices.Sort(targets)
	reported := map[string]bool{}
	for _, target := range targets {
		// what is the rule that the target breaks; one example of each is enough.
		what := ""
		if b.own(target) {
			other, pattern, ok := b.roomOf(target)
			switch {
			case !ok: // reported for the target itself
			case other.Name != room.Name && !slices.Contains(room.MayReach, other.Name):
				what = other.Name
			case other.Name == room.Name && apart(pattern) && !below(pkg, target) && !below(target, pkg):
				what = b.short(target)
			}
		} else if i := slices.IndexFunc(room.NeverReach, func(never string) bool { return below(target, never) }); i >= 0 {
			what = room.NeverReach[i]
		}
		if what != "" && !reported[what] {
			reported[what] = true
			errs = append(errs, fmt.Errorf("room %s must not reach %s: %s", room.Name, what, b.chain(chains, target)))
		}
	}
	return errs
}

// reach returns everything that a package reaches, each with the package that is
// before it on a shortest way there.
func (b building) reach(pkg string) map[string]string {
	before := map[string]string{}
	queue := []string{pkg}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		for _, next := range b.imports[at] {
			if _, seen := before[next]; !seen && next != pkg {
				before[next] = at
				queue = append(queue, next)
			}
		}
	}
	return before
}

// chain is the way to a package that reach found.
func (b building) chain(before map[string]string, target string) string {
	way := b.short(target)
	for at, ok := before[target]; ok; at, ok = before[at] {
		way = b.short(at) + " -> " + way
	}
	return way
}

// roomOf returns the room of a package of the module, and the pattern that puts it
// there.
func (b building) roomOf(pkg string) (room Room, pattern string, ok bool) {
	name := b.short(pkg)
	best := -1
	for _, r := range b.rooms {
		for _, p := range r.Packages {
			dir, deep := strings.CutSuffix(p, "/...")
			if apart(p) {
				dir, deep = strings.CutSuffix(p, "/*")
				deep = deep && name != dir
			}
			// Twice the length, so that "x" wins over "x/...".
			weight := 2 * len(dir)
			switch {
			case name == dir && !apart(p):
				weight++
			case deep && below(name, dir):
			default:
				continue
			}
			if weight > best {
				best, room, pattern = weight, r, p
			}
		}
	}
	return room, pattern, best >= 0
}

// known reports whether some package of the module reaches path or something
// below it.
func (b building) known(path string) bool {
	for pkg := range b.imports {
		if below(pkg, path) {
			return true
		}
	}
	return false
}

func (b building) own(pkg string) bool { return below(pkg, b.module) }

// short returns the path of a package of the module relative to it, "." for the one
// at the top, and other paths as they are.
func (b building) short(pkg string) string {
	switch {
	case pkg == b.module:
		return "."
	case b.own(pkg):
		return strings.TrimPrefix(pkg, b.module+"/")
	default:
		return pkg
	}
}

// apart reports whether the packages of a pattern must not reach each other.
func apart(pattern string) bool { return strings.HasSuffix(pattern, "/*") }

// below reports whether path is top, or below it.
func below(path, top string) bool { return path == top || strings.HasPrefix(path, top+"/") }
