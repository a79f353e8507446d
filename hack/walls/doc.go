// Package walls checks which packages of this module may reach which others.
//
// The rules stand in docs/architecture.md, in the table between the comments
// "walls" and "/walls", so that the page that people read is the page that the test
// holds the code to. One row is one room:
//
//	| room | package | may reach | must never reach |
//
// The columns are:
//
//   - room: a name, which other rows use.
//   - package: the packages of the room, relative to the module, with commas between
//     them. "pkg/x" is that package alone, "pkg/x/..." is it and all packages below
//     it, and "pkg/x/*" are the packages below it, which must not reach each other.
//     Where several rows match, the longest pattern wins, and "pkg/x" wins over
//     "pkg/x/...". The main package at the top is ".".
//   - may reach: the other rooms whose packages this room's production code may
//     import, directly or through others; "-" for none. A room may always reach
//     itself, except as "pkg/x/*" says.
//   - must never reach: packages of the standard library or of other modules, each
//     with everything below it, which the room may not even reach through others; "-"
//     for none.
//
// Tests are free to import what they need: only production code is checked, and the
// linter depguard restricts direct imports further.
//
// The package only computes; it is safe for concurrent use.
package walls
