// Package flagcheck checks the values of flags that several commands share. Each
// error names the flag, the value and the remedy.
//
// Its functions are pure, and safe for concurrent use.
package flagcheck

import (
	"fmt"
	"net"
)

// Listen checks an address to listen on: host:port, or "0" or "" for none.
func Listen(flag, address string) error {
	if address == "" || address == "0" {
		return nil
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		return fmt.Errorf("%s %q: give host:port, such as :9790, or 0 for none: %w", flag, address, err)
	}
	return nil
}
