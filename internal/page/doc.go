// Package page serves a read-only page in a browser: which namespace leaves the cluster with
// which egress IP by which host, what is wrong first, and for each namespace why.
//
// A Model is made from objects of the API by the brain's own functions, as the kubectl plugin
// does: it is what the objects say, with what their conditions say beside it where that
// differs. What no object says is shown as unknown.
//
// The page works as plain HTML. With JavaScript it is kept up to date by server-sent events:
// first the whole list, then what changed, by a number that a client that comes back names.
// Nothing is loaded from elsewhere, and the Content-Security-Policy allows nothing but the
// package's own files. Values from objects reach a browser by html/template, or as JSON that
// the script writes into text nodes: never as HTML.
//
// All links are relative, so that a proxy may serve the page below any path.
//
// A Page is safe for concurrent use. What it serves ends with the context of Start.
package page
