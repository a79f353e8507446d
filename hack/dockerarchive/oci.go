package dockerarchive

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
)

// Media types of the OCI image specification.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// descriptor names a blob.
type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Platform    *platform         `json:"platform,omitempty"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

type platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// manifest is an image of one platform, and index one of several.
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

type index struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	Manifests     []descriptor      `json:"manifests"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// layout is an OCI image layout as it grows.
type layout struct{ parts []part }

// add takes a blob and names it.
func (l *layout) add(mediaType string, blob []byte) descriptor {
	id := digest(blob)
	l.parts = append(l.parts, part{"blobs/sha256/" + id[len("sha256:"):], blob})
	return descriptor{MediaType: mediaType, Digest: id, Size: len(blob)}
}

// addJSON takes a value as a blob.
func (l *layout) addJSON(mediaType string, value any) (descriptor, error) {
	blob, err := json.Marshal(value)
	if err != nil {
		return descriptor{}, err
	}
	return l.add(mediaType, blob), nil
}

// WriteOCI writes the images of several platforms, which are one image with the tag of the first,
// as a tarball of an OCI image layout. It returns the digest by which a registry knows that image
// if it was copied there unchanged.
func WriteOCI(target string, images ...Image) (string, error) {
	if len(images) == 0 {
		return "", errors.New("write an image of no platform")
	}
	tag := images[0].Tag
	fail := func(err error) (string, error) { return "", fmt.Errorf("write image %s: %w", tag, err) }
	var all layout
	whole := index{SchemaVersion: 2, MediaType: typeIndex, Annotations: images[0].Labels}
	for _, image := range images {
		m, err := all.image(image)
		if err != nil {
			return fail(err)
		}
		whole.Manifests = append(whole.Manifests, m)
	}
	named, err := all.addJSON(typeIndex, whole)
	if err != nil {
		return fail(err)
	}
	// The first name is for containerd, the second one for others.
	named.Annotations = map[string]string{"io.containerd.image.name": tag, "org.opencontainers.image.ref.name": tag}
	entry, err := json.Marshal(index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []descriptor{named}})
	if err != nil {
		return fail(err)
	}
	parts := append([]part{{"oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)}, {"index.json", entry}}, all.parts...)
	if err := save(target, parts...); err != nil {
		return fail(err)
	}
	return named.Digest, nil
}

// image takes the blobs of the image of one platform, and names its manifest.
func (l *layout) image(i Image) (descriptor, error) {
	tarball, err := layer(i.Files)
	if err != nil {
		return descriptor{}, err
	}
	config, err := i.config(tarball)
	if err != nil {
		return descriptor{}, err
	}
	var packed bytes.Buffer
	zipped := gzip.NewWriter(&packed)
	_, err = zipped.Write(tarball)
	if err := errors.Join(err, zipped.Close()); err != nil {
		return descriptor{}, err
	}
	m, err := l.addJSON(typeManifest, manifest{
		SchemaVersion: 2, MediaType: typeManifest, Annotations: i.Labels,
		Config: l.add(typeConfig, config), Layers: []descriptor{l.add(typeLayer, packed.Bytes())},
	})
	m.Platform = &platform{Architecture: cmp.Or(i.Arch, runtime.GOARCH), OS: "linux"}
	return m, err
}
