// Package install tests the two ways of installing: the Helm chart, and
// config/default, which is generated from it.
package install
