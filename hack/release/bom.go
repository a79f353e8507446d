package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/url"
	"strings"
	"time"

	cdx "github.com/CycloneDX/cyclonedx-go"

	"github.com/egressip-operator/egressip-operator/hack/imagefiles"
	"github.com/egressip-operator/egressip-operator/hack/modules"
)

// bom lists what an image is made of, in CycloneDX's form: Go modules out of the binary itself,
// and Debian packages.
func (r *release) bom(name string, linked []modules.Module, packages []imagefiles.Package) ([]byte, error) {
	components := make([]cdx.Component, 0, len(linked)+len(packages))
	for _, m := range linked {
		c := library(m.Path, m.Version, "pkg:golang/"+escape(m.Path)+"@"+escape(m.Version))
		c.Licenses = &cdx.Licenses{{License: &cdx.License{ID: m.Licence}}}
		if m.Sum != "" {
			c.Properties = &[]cdx.Property{{Name: "go:sum", Value: m.Sum}}
		}
		components = append(components, c)
	}
	for _, p := range packages {
		c := library(p.Name, p.Version, "pkg:deb/debian/"+escape(p.Name)+"@"+escape(p.Version)+"?arch="+p.Arch)
		c.Properties = &[]cdx.Property{{Name: "debian:source", Value: p.Source + " " + p.SourceVersion}}
		components = append(components, c)
	}
	const ref = "image"
	depends := make([]string, len(components))
	dependencies := []cdx.Dependency{{Ref: ref, Dependencies: &depends}}
	for i, c := range components {
		depends[i] = c.BOMRef
		dependencies = append(dependencies, cdx.Dependency{Ref: c.BOMRef})
	}
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{
		Timestamp: r.created.UTC().Format(time.RFC3339),
		Component: &cdx.Component{BOMRef: ref, Type: cdx.ComponentTypeContainer, Name: name, Version: r.number()},
	}
	bom.Components, bom.Dependencies = &components, &dependencies
	bom.SerialNumber = serial(name, r.Version, r.revision, strings.Join(depends, " "))
	var b bytes.Buffer
	if err := cdx.NewBOMEncoder(&b, cdx.BOMFileFormatJSON).SetPretty(true).EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return nil, fmt.Errorf("write what %s is made of: %w", name, err)
	}
	return b.Bytes(), nil
}

func library(name, version, purl string) cdx.Component {
	return cdx.Component{BOMRef: purl, Type: cdx.ComponentTypeLibrary, Name: name, Version: version, PackageURL: purl}
}

// escape escapes the segments of a path, as package URLs want it: a plus, too.
func escape(path string) string {
	segments := strings.Split(path, "/")
	for i, s := range segments {
		segments[i] = strings.ReplaceAll(url.PathEscape(s), "+", "%2B")
	}
	return strings.Join(segments, "/")
}

// serial is a UUID of version 8, RFC 9562: the same for the same contents.
func serial(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	sum[6], sum[8] = sum[6]&0x0f|0x80, sum[8]&0x3f|0x80
	return fmt.Sprintf("urn:uuid:%x-%x-%x-%x-%x", sum[0:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}
