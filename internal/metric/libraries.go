package metric

// Library is a library whose metrics are served, too.
type Library struct{ Prefix, Of, Says string }

// Libraries are those whose metrics the endpoints serve besides ours. Their names are theirs, and
// may change with them.
func Libraries() []Library {
	return []Library{
		{"go_", "the Go client of Prometheus", "memory, goroutines and garbage collection"},
		{"process_", "the Go client of Prometheus", "processor time, memory and files of the process"},
		{"controller_runtime_", "controller-runtime", "reconciles of each controller: number, errors, duration"},
		{"workqueue_", "controller-runtime", "work that waits for each controller"},
		{"leader_election_", "controller-runtime", "whether this controller holds the Lease"},
		{"rest_client_", "client-go", "requests to the API server, by method and status"},
		{"certwatcher_", "controller-runtime", "not used: certificates are not read from files"},
	}
}
