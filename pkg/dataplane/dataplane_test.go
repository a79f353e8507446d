package dataplane

import "testing"

func TestConfigIsCompletedAndChecked(t *testing.T) {
	c, err := Config{}.complete()
	if err != nil || c.Marks != DefaultMarks() || c.OverlayPort != defaultOverlayPort || c.PinDir != defaultPinDir {
		t.Errorf("defaults are %+v, %v", c, err)
	}
	for name, wrong := range map[string]Config{
		"narrow mask":     {Marks: Marks{Mask: 0x3}},
		"unknown backend": {Backends: []Backend{"ebtables"}},
	} {
		if _, err := wrong.complete(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
