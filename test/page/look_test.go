package page_test

import (
	"os"
	"path/filepath"
	"testing"
)

// shotsVariable names a directory into which screenshots go, for docs and for people who look.
const shotsVariable = "EGRESSIP_TEST_SCREENSHOTS"

func TestLook(t *testing.T) {
	dir := os.Getenv(shotsVariable)
	if dir == "" {
		dir = t.TempDir()
	}
	w := &world{now: story()}
	address := serve(t, w)
	b := browse(t, 1280, 1400)
	for _, scheme := range []string{"light", "dark"} {
		b.colours(scheme)
		b.open(address)
		b.until(`document.querySelectorAll(".row").length > 5`)
		b.screenshot(filepath.Join(dir, "overview-"+scheme+".png"))
		b.open(address + "namespaces/payments")
		b.screenshot(filepath.Join(dir, "namespace-"+scheme+".png"))
		b.open(address + "hosts/node3")
		b.screenshot(filepath.Join(dir, "host-"+scheme+".png"))
	}
	b.quiet()
}
