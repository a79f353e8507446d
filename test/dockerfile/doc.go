// Package dockerfile builds the Dockerfile with buildah, which needs no daemon, on base images that
// it makes itself of Debian packages and this machine's Go, so that no registry is needed either.
package dockerfile
