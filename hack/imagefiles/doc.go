// Package imagefiles collects what the operator's container image has: the static binary, and
// iptables of both backends with their extensions and libraries, out of Debian packages. These are
// either those that are installed on this machine, or downloaded ones of any architecture. For
// scanners of images it has what Debian says of these packages, and for all parts their licences.
package imagefiles
