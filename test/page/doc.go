// Package page tests the controller's page in a browser: headless Chromium, which gets what a
// user's browser would get. It is started against addresses of the loopback alone.
package page
