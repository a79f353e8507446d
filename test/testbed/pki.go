package testbed

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// lanAdmin names the administrator's kubeconfig for use in the test bed's
// places.
const lanAdmin = "admin-lan"

// authority is the cluster's certificate authority.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
}

// makePKI writes the authority, a certificate for each component and node, the
// kubeconfigs, and the key of service account tokens.
func (c *Cluster) makePKI(relayPort int) error {
	a, err := newAuthority(c.pkiDir())
	if err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	names := slices.Concat([]string{"127.0.0.1", "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"},
		c.options.families(controlPlaneIP, controlPlaneIPv6), c.options.families(firstServiceIP, firstServiceIPv6))
	errs := []error{
		a.serviceAccountKey(),
		a.certificate("apiserver", pkix.Name{CommonName: "kube-apiserver"}, names...),
		a.certificate("apiserver-kubelet-client", pkix.Name{CommonName: "kube-apiserver-kubelet-client", Organization: []string{"system:masters"}}),
		a.certificate("admin", pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}),
		a.kubeconfig("admin", fmt.Sprintf("https://127.0.0.1:%d", relayPort)),
		a.certificate(lanAdmin, pkix.Name{CommonName: "admin", Organization: []string{"system:masters"}}),
		a.kubeconfig(lanAdmin, c.apiURL()),
	}
	for _, name := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		errs = append(errs, a.certificate(name, pkix.Name{CommonName: "system:" + name}), a.kubeconfig(name, c.apiURL()))
	}
	for i := 1; i <= c.options.Nodes; i++ {
		name := nodeName(i)
		subject := pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
		errs = append(errs, a.certificate(name, subject, append(c.options.families(nodeIP(i).String(), nodeIPv6(i).String()), name)...), a.kubeconfig(name, c.apiURL()))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	return nil
}

func newAuthority(dir string) (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := template(pkix.Name{CommonName: "testbed"})
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &authority{dir: dir, cert: cert, key: key}, writePEM(filepath.Join(dir, "ca.crt"), "CERTIFICATE", der)
}

func template(subject pkix.Name) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      subject,
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(365 * 24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
}

// certificate writes NAME.crt and NAME.key; names are DNS names or addresses.
func (a *authority) certificate(name string, subject pkix.Name, names ...string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	t := template(subject)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, n)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	return errors.Join(writePEM(filepath.Join(a.dir, name+".crt"), "CERTIFICATE", der), writeKey(filepath.Join(a.dir, name+".key"), key))
}

// serviceAccountKey writes sa.key and sa.pub.
func (a *authority) serviceAccountKey() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return err
	}
	return errors.Join(writeKey(filepath.Join(a.dir, "sa.key"), key), writePEM(filepath.Join(a.dir, "sa.pub"), "PUBLIC KEY", public))
}

// kubeconfig writes NAME.conf for the certificate of that name.
func (a *authority) kubeconfig(name, server string) error {
	file := func(suffix string) string { return filepath.Join(a.dir, name+suffix) }
	content := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: testbed
clusters: [{name: testbed, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: %q, user: {client-certificate: %q, client-key: %q}}]
contexts: [{name: testbed, context: {cluster: testbed, user: %q}}]
`, server, filepath.Join(a.dir, "ca.crt"), name, file(".crt"), file(".key"), name)
	return os.WriteFile(file(".conf"), []byte(content), 0o600)
}

func writeKey(path string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "EC PRIVATE KEY", der)
}

func writePEM(path, kind string, der []byte) error {
	return os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
}
