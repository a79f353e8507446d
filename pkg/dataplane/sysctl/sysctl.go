package sysctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// IPv4Forward is the path of the setting that lets the host forward packets.
const IPv4Forward = "/proc/sys/net/ipv4/ip_forward"

// OfDevice returns the path of an IPv4 setting of a device.
func OfDevice(device, name string) string {
	return filepath.Join("/proc/sys/net/ipv4/conf", device, name)
}

// Get reads a setting.
func Get(path string) (string, error) {
	got, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("read setting: %w", err)
	}
	return strings.TrimSpace(string(got)), nil
}

// Ensure writes a setting where it differs, and counts the changes.
func Ensure(path, want string) (changes int, err error) {
	got, err := Get(path)
	if err != nil || got == want {
		return 0, err
	}
	if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
		return 0, fmt.Errorf("write setting: %w", err)
	}
	return 1, nil
}
