// Package matrix names the combinations of CNI, mode of kube-proxy and backends on which
// the operator is tried, and keeps what came of it.
//
// A combination is a cell. "make matrix" (hack/matrix) plays the test TestCell of test/e2e
// on each cell, records the results in results.json, and writes them as a table into
// docs/compatibility-matrix.md. A cell without a result is in the table too: as not run.
package matrix
