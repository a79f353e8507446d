// Package warning turns what was seen on a host into warnings for the admin: what other
// software, or a setting, does to egress IPs there although the kernel is as planned.
//
// It is the one place for reasons, words and remedies. All of it is pure: [From] takes
// facts, [Tidy] puts warnings in order and bounds them.
package warning
