package flagcheck

import (
	"strings"
	"testing"
)

func TestListen(t *testing.T) {
	t.Parallel()
	for address, fails := range map[string]bool{
		"": false, "0": false, ":9790": false, "127.0.0.1:9790": false, "[::1]:9790": false,
		"9790": true, "nowhere": true, "1:2:3": true,
	} {
		err := Listen("--metrics-bind-address", address)
		if fails != (err != nil) {
			t.Errorf("%q: error %v, want one: %v", address, err, fails)
		}
		if err != nil && !strings.Contains(err.Error(), `--metrics-bind-address "`+address+`": give host:port`) {
			t.Errorf("%q: %v", address, err)
		}
	}
}
