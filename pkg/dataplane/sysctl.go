package dataplane

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ifaceSysctl is the path of an IPv4 setting of a device.
func ifaceSysctl(device, name string) string {
	return filepath.Join("/proc/sys/net/ipv4/conf", device, name)
}

// ensureSysctl writes a setting of the network namespace where it differs.
func ensureSysctl(path, want string) (changes int, err error) {
	got, err := os.ReadFile(path)
	if err != nil {
		return 0, fmt.Errorf("read setting: %w", err)
	}
	if strings.TrimSpace(string(got)) == want {
		return 0, nil
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		return 0, fmt.Errorf("write setting: %w", err)
	}
	return 1, nil
}

// sysctlWarnings tells of settings of the host that are not ours to change, and
// with which pods reach nothing outside.
func sysctlWarnings() []string {
	const forward = "/proc/sys/net/ipv4/ip_forward"
	got, err := os.ReadFile(forward)
	switch {
	case err != nil:
		return []string{fmt.Sprintf("read setting: %v", err)}
	case strings.TrimSpace(string(got)) != "1":
		return []string{"the host forwards no packets: net.ipv4.ip_forward is " + strings.TrimSpace(string(got)) + ", not 1"}
	}
	return nil
}
