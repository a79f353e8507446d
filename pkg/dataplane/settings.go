package dataplane

import (
	"github.com/egressip-operator/egressip-operator/pkg/dataplane/sysctl"
)

// sysctlWarnings reports settings of the host that are not ours to change, and
// with which pods reach nothing outside.
func sysctlWarnings() []string {
	got, err := sysctl.Get(sysctl.IPv4Forward)
	switch {
	case err != nil:
		return []string{err.Error()}
	case got != "1":
		return []string{"the host forwards no packets: net.ipv4.ip_forward is " + got + ", not 1"}
	}
	return nil
}
