package walls

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The comments around the table.
const (
	begin = "<!-- walls -->"
	end   = "<!-- /walls -->"
)

// Room is one row of the table.
type Room struct {
	// Name is how other rows refer to the room.
	Name string
	// Packages are patterns, relative to the module.
	Packages []string
	// MayReach are names of rooms.
	MayReach []string
	// NeverReach are import paths, each with everything below it.
	NeverReach []string
}

// Parse reads the table out of a Markdown page.
func Parse(page string) ([]Room, error) {
	_, rest, ok := strings.Cut(page, begin)
	if !ok {
		return nil, fmt.Errorf("the page has no %s", begin)
	}
	table, _, ok := strings.Cut(rest, end)
	if !ok {
		return nil, fmt.Errorf("the page has no %s", end)
	}
	var rooms []Room
	var errs []error
	header := true
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		switch {
		case !strings.HasPrefix(line, "|") || len(cells) != 4:
			errs = append(errs, fmt.Errorf("%q is no row of four columns", line))
		case header:
			header = false // the line that names the columns
		case strings.Trim(line, "|-: ") == "":
			// the line below it
		default:
			rooms = append(rooms, Room{
				Name: text(cells[0]), Packages: list(cells[1]), MayReach: list(cells[2]), NeverReach: list(cells[3]),
			})
		}
	}
	return rooms, errors.Join(append(errs, checkRooms(rooms)...)...)
}

// checkRooms reports what is wrong with the table itself.
func checkRooms(rooms []Room) (errs []error) {
	names, patterns := map[string]bool{}, map[string]string{}
	for _, r := range rooms {
		if names[r.Name] {
			errs = append(errs, fmt.Errorf("room %s stands in the table twice", r.Name))
		}
		names[r.Name] = true
		for _, p := range r.Packages {
			if other, taken := patterns[p]; taken {
				errs = append(errs, fmt.Errorf("%s belongs to the rooms %s and %s", p, other, r.Name))
			}
			patterns[p] = r.Name
		}
	}
	for _, r := range rooms {
		for _, other := range r.MayReach {
			if !names[other] {
				errs = append(errs, fmt.Errorf("room %s may reach %s, which is no room of the table", r.Name, other))
			}
		}
	}
	return errs
}

// text returns a cell without the marks of Markdown.
func text(cell string) string { return strings.TrimSpace(strings.ReplaceAll(cell, "`", "")) }

// list returns the elements of a cell.
func list(cell string) []string {
	elements := strings.Split(text(cell), ",")
	for i := range elements {
		elements[i] = strings.TrimSpace(elements[i])
	}
	return slices.DeleteFunc(elements, func(e string) bool { return e == "" || e == "-" })
}
