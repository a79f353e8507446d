package modules

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestOf: each module that is linked into this test is there with its licence, and its text.
func TestOf(t *testing.T) {
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	linked, err := Of(t.Context(), binary)
	if err != nil || len(linked) == 0 || linked[0].Path != "std" || linked[0].Licence != "BSD-3-Clause" {
		t.Fatalf("%+v, %v", linked, err)
	}
	if _, err := Of(t.Context(), "/etc/passwd"); err == nil {
		t.Error("a file that is no binary has modules")
	}
}

// TestLicences: the text of each licence is there in full, under the module that it is of.
func TestLicences(t *testing.T) {
	got := string(Licences([]byte("ours\n"), []Module{
		{Path: "a", Version: "v1", texts: []text{{"LICENSE", "licence of a\n"}, {"NOTICE", "notice of a"}}},
		{Path: "b", Version: "v2", texts: []text{{"COPYING", "licence of b"}}},
	}))
	at := 0
	for _, want := range []string{"ours\n", "\na v1: LICENSE\n", "\nlicence of a\n", "\na v1: NOTICE\n", "\nnotice of a\n", "\nb v2: COPYING\n", "\nlicence of b\n"} {
		i := strings.Index(got[at:], want)
		if i < 0 {
			t.Fatalf("no %q after byte %d of:\n%s", want, at, got)
		}
		at += i
	}
}

// TestUnknownLicenceIsRefused: what may not be passed on, or is not known to be, is no release.
func TestUnknownLicenceIsRefused(t *testing.T) {
	for licence, want := range map[string]string{
		"Apache License\n   Version 2.0, January 2004":                                                                           "Apache-2.0",
		"Permission is hereby granted, free of\ncharge, to any person, to deal in the Software without restriction":              "MIT",
		"Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is hereby granted": "ISC",
		"Permission to use, copy, modify, and distribute this software for any purpose with or without fee":                      "ISC",
		"Redistribution and use in source and binary forms, ... * Neither the name of Google Inc. nor the names of its":          "BSD-3-Clause",
		"Redistribution and use in source and binary forms, with or without":                                                     "BSD-2-Clause",
		"Mozilla Public License Version 2.0":                                                                                     "MPL-2.0",
		"GNU GENERAL PUBLIC LICENSE Version 2, June 1991":                                                                        "",
		"All rights reserved.": "",
	} {
		if got := identify(licence); got != want {
			t.Errorf("%q is %q, want %q", licence, got, want)
		}
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"LICENSE": "All rights reserved.", "main.go": "Apache License Version 2.0"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if m, err := withLicence(Module{Path: "example.com/m", Version: "v1"}, dir); err == nil || !strings.Contains(err.Error(), "example.com/m") {
		t.Errorf("%+v, %v", m, err)
	}
}
