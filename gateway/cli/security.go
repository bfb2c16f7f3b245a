package cli

import (
	"os"

	"github.com/spf13/pflag"

	"github.com/doppel-iot/doppel/gateway/auth"
)

// identify registers how a client command comes to a node and says who calls.
func identify(fs *pflag.FlagSet, c *auth.Client) {
	c.Token = os.Getenv("DOPPEL_TOKEN")
	fs.BoolVar(&c.TLS, "tls", false, "connect with TLS; implied by the other --tls flags")
	fs.StringVar(&c.Files.CA, "tls-ca", os.Getenv("DOPPEL_TLS_CA"), "certificate authorities `FILE` (PEM) that vouch for nodes; none: the system's (env DOPPEL_TLS_CA)")
	fs.StringVar(&c.Files.Cert, "tls-cert", os.Getenv("DOPPEL_TLS_CERT"), "client certificate `FILE` (PEM) (env DOPPEL_TLS_CERT)")
	fs.StringVar(&c.Files.Key, "tls-key", os.Getenv("DOPPEL_TLS_KEY"), "its private key `FILE` (PEM) (env DOPPEL_TLS_KEY)")
	fs.StringVar(&c.TokenFile, "token-file", os.Getenv("DOPPEL_TOKEN_FILE"), "`FILE` of the token to show (env DOPPEL_TOKEN_FILE, or DOPPEL_TOKEN for the token itself)")
}
