package archives

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTarball: what is packed can be unpacked, and the same files give the same bytes.
func TestTarball(t *testing.T) {
	files := []File{{Name: "program", Content: []byte("x"), Executable: true}, {Name: "a/LICENSE", Content: []byte("licence")}}
	packed, err := Tarball(files...)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Tarball(files...)
	if err != nil || !bytes.Equal(packed, again) {
		t.Errorf("packed twice: not the same, %v", err)
	}
	got, err := Files(bytes.NewReader(packed))
	if diff := cmp.Diff(files, got); err != nil || diff != "" {
		t.Errorf("%v, unpacked (-want +got):\n%s", err, diff)
	}
	if _, err := Files(bytes.NewReader(packed[:len(packed)/2])); err == nil {
		t.Error("half an archive was unpacked")
	}
}
