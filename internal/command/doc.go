// Package command holds the commands of the program egressip-operator: their
// flags, the log, and the connection to the API server.
//
// Each command fills the options of the package that does the work, which checks
// them. Everything that a flag can get wrong is reported before the command
// contacts the API server or changes the node. The package has no state: each call
// of New returns commands and flags of their own, and the context of the command
// ends what it started.
package command
