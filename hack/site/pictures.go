package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
)

// checkPicture reports what a picture lacks for readers who do not see it, or see it on a dark
// screen, and what it loads from elsewhere.
func checkPicture(name, svg string) error {
	var errs []error
	for what, pattern := range map[string]string{
		"a title": `<title id="title">[^<]+</title>`, "a description": `<desc id="desc">[^<]+</desc>`,
		"role and names for screen readers": `role="img" aria-labelledby="title desc"`,
		"colours for dark screens":          `prefers-color-scheme: dark`,
	} {
		if !regexp.MustCompile(pattern).MatchString(svg) {
			errs = append(errs, fmt.Errorf("%s has no %s", name, strings.TrimPrefix(what, "a ")))
		}
	}
	if found := regexp.MustCompile(`(?:href|src|url)[=(]["']?(?:https?:)?//`).FindString(svg); found != "" {
		errs = append(errs, fmt.Errorf("%s loads something from outside: %s", name, found))
	}
	return errors.Join(errs...)
}

// namelessPictures finds pictures of a page without a text for readers who do not see them.
func namelessPictures(name string, p page) error {
	if found := regexp.MustCompile(`!\[\s*\]\([^)]*\)`).FindString(p.prose); found != "" {
		return fmt.Errorf("%s: %s has no text for readers who do not see it", name, found)
	}
	return nil
}
