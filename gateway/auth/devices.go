package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/doppel-iot/doppel/gateway/files"
)

// Device is what a client of the embedded broker may do. Its zero value may do nothing.
type Device struct {
	// Name it is known by.
	Name string
	// Service: it may publish and subscribe to anything.
	Service bool
	// devices are patterns of the ids it speaks for.
	devices []string
	hash    string // of its password; empty: none
}

// Is says whether it speaks for a device.
func (d *Device) Is(id string) bool {
	if d.Service {
		return true
	}
	for _, pattern := range d.devices {
		if glob(pattern, id) {
			return true
		}
	}
	return false
}

// Own returns what a device of an id may do, without a password.
func Own(id string) *Device { return &Device{Name: id, devices: []string{escape(id)}} }

// escape makes a pattern of an id that is no pattern: ids have no *, but client ids may.
func escape(id string) string {
	if strings.Contains(id, "*") {
		return "\x00" // no id
	}
	return id
}

// DeviceUsers is a file of the users of the embedded broker:
//
//	users:
//	- {name: pump-1, password: "$2a$10$…"}
//	- {name: gateway-7, password: "$2a$10$…", devices: ["pump-*", "fan-3"]}
//	- {name: backend, password: "$2a$10$…", service: true}
//
// password is a bcrypt hash (doppel mqtt passwd). A user is the device of its name, or speaks for those of
// devices (* stands for anything); a service may publish and subscribe to everything. One without a password
// comes in by a client certificate with its name only.
type DeviceUsers struct {
	path   string // empty: there is no file
	log    *slog.Logger
	users  atomic.Pointer[map[string]deviceUser]
	change atomic.Pointer[func()]

	hashing chan struct{} // who looks at a hash, so that a crowd that connects leaves processors to others
	secret  []byte
	mu      sync.Mutex
	known   map[string]knownPassword // by user
}

type deviceUser struct {
	device   *Device
	password string // bcrypt; empty: none
}

// knownPassword is one that was right, without telling it.
type knownPassword struct{ hash, mac string }

type deviceFile struct {
	Users []struct {
		Name     string   `yaml:"name"`
		Password string   `yaml:"password"`
		Devices  []string `yaml:"devices"`
		Service  bool     `yaml:"service"`
	} `yaml:"users"`
}

// OpenDeviceUsers reads the file; without one there is nobody in it.
func OpenDeviceUsers(path string, log *slog.Logger) (*DeviceUsers, error) {
	u := &DeviceUsers{
		path: path, log: log, secret: make([]byte, 32), known: make(map[string]knownPassword),
		hashing: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)),
	}
	_, _ = rand.Read(u.secret) // never fails
	u.users.Store(&map[string]deviceUser{})
	if path == "" {
		return u, nil
	}
	return u, u.read()
}

// Run reads the file again when it changes, until ctx ends. every 0: the default.
func (u *DeviceUsers) Run(ctx context.Context, every time.Duration) error {
	if u.path == "" {
		<-ctx.Done()
		return nil
	}
	return files.Follow(ctx, every, u.log, "mqtt-users", u.read, u.path)
}

// OnChange calls f whenever users have changed.
func (u *DeviceUsers) OnChange(f func()) { u.change.Store(&f) }

func (u *DeviceUsers) read() error {
	text, err := files.Read(u.path)
	if err != nil {
		return err
	}
	users, err := parseDeviceUsers(text)
	if err != nil {
		return err
	}
	u.users.Store(&users)
	if f := u.change.Load(); f != nil {
		(*f)()
	}
	return nil
}

func parseDeviceUsers(text []byte) (map[string]deviceUser, error) {
	var f deviceFile
	if err := decode(text, &f); err != nil {
		return nil, err
	}
	users := make(map[string]deviceUser, len(f.Users))
	for i := range f.Users {
		e := &f.Users[i]
		_, twice := users[e.Name]
		switch {
		case e.Name == "":
			return nil, fmt.Errorf("users[%d]: name is missing", i)
		case twice:
			return nil, fmt.Errorf("users[%d]: there are two of name %q", i, shorten(e.Name))
		case e.Service && len(e.Devices) > 0:
			return nil, fmt.Errorf("users[%d] (%s): is a service or has devices, not both", i, shorten(e.Name))
		case e.Password != "":
			if _, err := bcrypt.Cost([]byte(e.Password)); err != nil {
				return nil, fmt.Errorf("users[%d] (%s): password is not a bcrypt hash; doppel mqtt passwd makes one", i, shorten(e.Name))
			}
		}
		d := &Device{Name: e.Name, Service: e.Service, devices: e.Devices, hash: e.Password}
		if len(e.Devices) == 0 {
			d.devices = []string{escape(e.Name)}
		}
		users[e.Name] = deviceUser{device: d, password: e.Password}
	}
	return users, nil
}

// ErrDevice says that nobody has this name and this password.
var ErrDevice = errors.New("no such user, or not its password")

// nobody is the hash of a password that nobody has, so that one who does not exist takes as long as one who does.
const nobody = "$2a$10$yrCVcdLoJTQtEBNSs9SXMOKFUwhddM7G.beQCkaNpYOvks3Qa4hUe"

// Password returns who has a name and a password.
func (u *DeviceUsers) Password(name, password string) (*Device, error) {
	user, ok := (*u.users.Load())[name]
	if !ok || user.password == "" {
		user.password = nobody
	}
	mac := u.mac(name, password)
	u.mu.Lock()
	known := u.known[name]
	u.mu.Unlock()
	if ok && known.hash == user.password && hmac.Equal([]byte(known.mac), []byte(mac)) {
		return user.device, nil
	}
	u.hashing <- struct{}{}
	err := bcrypt.CompareHashAndPassword([]byte(user.password), []byte(password))
	<-u.hashing
	if err != nil || user.password == nobody {
		return nil, ErrDevice
	}
	u.mu.Lock()
	u.known[name] = knownPassword{hash: user.password, mac: mac}
	u.mu.Unlock()
	return user.device, nil
}

func (u *DeviceUsers) mac(name, password string) string {
	h := hmac.New(sha256.New, u.secret)
	h.Write([]byte(name))
	h.Write([]byte{0})
	h.Write([]byte(password))
	return string(h.Sum(nil))
}

// Certificate returns who a verified client certificate is of: the user of its common name, or the device.
func (u *DeviceUsers) Certificate(c *x509.Certificate) (*Device, error) {
	name := c.Subject.CommonName
	if name == "" {
		return nil, errors.New("the client certificate has no common name")
	}
	if user, ok := (*u.users.Load())[name]; ok {
		return user.device, nil
	}
	return Own(name), nil
}

// Has says whether somebody speaks for a device, so that nobody else may be it without being asked.
func (u *DeviceUsers) Has(id string) bool {
	for _, user := range *u.users.Load() {
		if !user.device.Service && user.device.Is(id) {
			return true
		}
	}
	return false
}

// Still says what one who came in as d may do now; false: nothing any more.
func (u *DeviceUsers) Still(d *Device, byPassword bool) (*Device, bool) {
	user, ok := (*u.users.Load())[d.Name]
	switch {
	case !ok:
		return d, !byPassword
	case byPassword && user.password != d.hash:
		return d, false
	}
	return user.device, true
}

// HashPassword is a password as the file of users has it.
func HashPassword(password string) (string, error) {
	b, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.DefaultCost)
	return string(b), err
}
