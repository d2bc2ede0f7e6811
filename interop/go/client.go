// Package socp is a client of SOCP, made after docs/PROTOCOL.md. This file takes part: it knows the server, logs
// in, and keeps the two streams open: that of watch.go, and that of attach.go. messages.go sends and opens, files.go does so
// with files, receipts.go with receipts, device.go keeps how far the inbox and the channel were read; sealed.go has the bytes that are signed and
// encrypted. To use them, copy the eight, generate stubs as `build` does, and:
//
//	key, err := rsa.GenerateKey(rand.Reader, 4096)
//	device, err := socp.LoadDevice("alice.device")
//	c, err := socp.Dial(ctx, socp.Config{Server: "127.0.0.1:7443", ServerID: id, CA: ca, Name: "alice", Key: key, Device: device, Events: e})
//	err = c.Register(ctx, "")
//	go c.Run(ctx)
//	kind, err := c.Tell(ctx, "bob@server-b", "hello")
//	kind, err = c.SendFile(ctx, "bob@server-b", "report.pdf")
//
// The folder `exchange` holds a program that does: `./build && ./start --help`.
package socp

import (
	"context"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	pb "socp.example/interop/gen/socp/v1"
)

const (
	firstPause   = 100 * time.Millisecond // "a random time between 0 and min(5 s, 100 ms * 2^n)"
	longestPause = 5 * time.Second
	callTimeout  = 15 * time.Second // "a server waits up to 5 s for another"
	silence      = 35 * time.Second // "two bookmarks missed": the stream is dead
	maxWraps     = 4096
	keptKeys     = 64
	unsaid       = 64 // messages after which the home is told that the device has them; attaching again says it, too
)

// Config says who one is, and where.
type Config struct {
	Server, ServerID string         // HOST:PORT, and the pinned id
	CA               *x509.CertPool // the server's own, from its `ca.pem`
	Name             string
	Key              *rsa.PrivateKey
	Device           *Device // forgotten with the program if nil
	Events           Events
	Receipts         pb.ReceiptKind // given to those who ask, and asked for; none if UNSPECIFIED
}

// Client is one session of one user.
type Client struct {
	Config
	Accounts  pb.AccountServiceClient
	Directory pb.DirectoryServiceClient
	Messages  pb.MessageServiceClient
	Files     pb.FileServiceClient

	conn        *grpc.ClientConn
	public      []byte // own public key, SubjectPublicKeyInfo
	fingerprint []byte
	login       sync.Mutex // held by the one that logs in
	posting     sync.Mutex // for `own`
	own         channelKey
	receipts    receipts

	mu     sync.Mutex // for all that follows
	proven [32]byte   // hash of the certificate key that the server's identity has signed
	token  string
	view   map[Who]*pb.DirectoryEntry
	resume string // the resume token that belongs to the view
	counts View
	pins   map[Who]*Key // a program that is to be trusted tomorrow keeps number and fingerprint on disk
	shown  map[shown]bool
	kept   map[Who][]keptKey   // channel keys of others, the newest last
	labels map[string]Who      // whoever was online: `name@server-name`, which means one user for good
	queued map[string][32]byte // by its id the hash of what was sent and is queued at the own home
}

type shown struct {
	from Who
	id   string
}

type keptKey struct{ id, key []byte }

// channelKey is the own one of this run, and who has it. The view replaces an entry whenever the user is added or
// updated, so a member has the key only as long as the very same entry is in the view: "a session that is new cannot
// have it".
type channelKey struct {
	id, key []byte
	counter uint64
	given   map[Who][]byte             // everybody it was ever wrapped for, with the hash of the key statement
	has     map[Who]*pb.DirectoryEntry // those whose home has signed that it was handed over
}

// --- Errors ---

var errIdentity = errors.New("the server is not the pinned one")

func refusal(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "socp" {
			return info
		}
	}
	return nil
}

// Reason is why the server refused, a name of the enum `Reason`; empty if the network or the library did.
func Reason(err error) string { return refusal(err).GetReason() }

// passing tells whether the same may succeed later. A reason that is not named here is treated by its code.
func passing(err error) bool {
	switch Reason(err) {
	case "TOKEN_INVALID", "TOO_MANY", "REVISION_COMPACTED", "RESUME_TOKEN_INVALID", "CURSOR_UNKNOWN":
		return true
	}
	switch status.Code(err) { // Unknown for an error that is no status
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Unknown, codes.Internal:
		return !errors.Is(err, errIdentity)
	}
	return false
}

// pause waits before attempt n (from 0), for a random time, so that the clients of a server that was lost do not all
// return at once. It is false if the context ended.
func pause(ctx context.Context, n int) bool {
	select {
	case <-time.After(rand.N(min(longestPause, firstPause<<min(n, 10)))):
		return true
	case <-ctx.Done():
		return false
	}
}

// --- Which server, and who one is there ---

// Dial checks that the pinned server answers at the address. It does not log in.
func Dial(ctx context.Context, config Config) (*Client, error) {
	c := newClient(config)
	if _, err := parseKey(c.public); err != nil {
		return nil, err
	}
	if err := c.identify(ctx); err != nil {
		return nil, err
	}
	// The library connects anew by itself. So the handshake takes no certificate but the one that the identity has
	// signed, and no token is sent before that.
	var err error
	c.conn, err = c.connect(func(state tls.ConnectionState) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if certificateKey(state) != c.proven {
			return errors.New("not the certificate that the server's identity has signed")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.Accounts = pb.NewAccountServiceClient(c.conn)
	c.Directory = pb.NewDirectoryServiceClient(c.conn)
	c.Messages = pb.NewMessageServiceClient(c.conn)
	c.Files = pb.NewFileServiceClient(c.conn)
	return c, nil
}

func newClient(config Config) *Client {
	public := &config.Key.PublicKey
	if config.Device == nil {
		config.Device, _ = LoadDevice("") // without a file nothing can fail
	}
	return &Client{Config: config, public: encodeKey(public), fingerprint: fingerprintOf(public), view: map[Who]*pb.DirectoryEntry{},
		pins: map[Who]*Key{}, shown: map[shown]bool{}, kept: map[Who][]keptKey{}, labels: map[string]Who{}, queued: map[string][32]byte{}}
}

func (c *Client) connect(check func(tls.ConnectionState) error) (*grpc.ClientConn, error) {
	return grpc.NewClient(c.Server,
		// Only the server's own CA, which "signs for nothing else". Sessions are not resumed: there is no cache for them.
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: c.CA, MinVersion: tls.VersionTLS13, VerifyConnection: check})),
		// Pings notice a dead path. 10 s is the shortest time that this library takes.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
}

func certificateKey(state tls.ConnectionState) [32]byte {
	return sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
}

// identify asks the server who it is, over a connection of its own, and checks the proof.
func (c *Client) identify(ctx context.Context) error {
	conn, err := c.connect(nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	var other peer.Peer
	info, err := pb.NewAccountServiceClient(conn).GetServerInfo(ctx, &pb.GetServerInfoRequest{}, grpc.Peer(&other))
	if err != nil {
		return err
	}
	proven := certificateKey(other.AuthInfo.(credentials.TLSInfo).State)
	if err := checkServer(info, c.ServerID, proven); err != nil {
		return fmt.Errorf("%w: %w", errIdentity, err)
	}
	c.locked(func() { c.proven = proven })
	return nil
}

func (c *Client) locked(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// Register claims the name with the key. "Registering again with the same key is answered like the first time."
func (c *Client) Register(ctx context.Context, invite string) error {
	statement := encode(&pb.KeyStatement{User: c.Name, HomeId: c.ServerID, PublicKey: c.public, Number: 1})
	signed := &pb.SignedKeyStatement{Statement: statement, Signature: Sign(c.Key, "socp.v1.KeyStatement", statement)}
	_, err := Call(ctx, c, c.Accounts.Register, &pb.RegisterRequest{KeyStatement: signed, Invite: invite})
	return err
}

// SignLogin answers a challenge. It names the pinned server, never one from an answer.
func (c *Client) SignLogin(nonce []byte) *pb.LogInRequest {
	statement := encode(&pb.LoginStatement{ServerId: c.ServerID, User: c.Name, Nonce: nonce})
	return &pb.LogInRequest{Statement: statement, Signature: Sign(c.Key, "socp.v1.LoginStatement", statement), Device: "sample in Go"}
}

// logIn opens a session, unless another goroutine has done so since the token was found to be void.
func (c *Client) logIn(ctx context.Context, void string) error {
	c.login.Lock()
	defer c.login.Unlock()
	if c.currentToken() != void {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	challenge, err := c.Accounts.CreateChallenge(ctx, &pb.CreateChallengeRequest{User: c.Name})
	if err != nil {
		return err
	}
	answer, err := c.Accounts.LogIn(ctx, c.SignLogin(challenge.Nonce))
	if err == nil {
		c.locked(func() { c.token = answer.Token })
	}
	return err
}

func (c *Client) currentToken() (token string) {
	c.locked(func() { token = c.token })
	return token
}

func bearer(ctx context.Context, token string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
}

// Call repeats a request, with the very same bytes, until it is answered, refused for good, or the context ends.
func Call[Q, A any](ctx context.Context, c *Client, rpc func(context.Context, *Q, ...grpc.CallOption) (*A, error), ask *Q) (*A, error) {
	for n := 0; ; n++ {
		token := c.currentToken()
		once, cancel := context.WithTimeout(bearer(ctx, token), callTimeout)
		answer, err := rpc(once, ask)
		cancel()
		if Reason(err) == "TOKEN_INVALID" {
			if failed := c.logIn(ctx, token); failed != nil {
				err = failed
			}
		}
		if err == nil || !passing(err) || !pause(ctx, n) {
			return answer, err
		}
	}
}

// Leave goes offline and ends the session; Run then returns.
func (c *Client) Leave(ctx context.Context) error {
	_, err := Call(ctx, c, c.Messages.Detach, &pb.DetachRequest{})
	_, err2 := Call(ctx, c, c.Accounts.LogOut, &pb.LogOutRequest{})
	return errors.Join(err, err2, c.conn.Close())
}

// --- Being there ---

// Run watches and attaches, and comes back after every break, until the context ends, the session is detached (nil), or
// it cannot be helped (REPLACED, USER_DISABLED, USER_MOVED, another server).
func (c *Client) Run(ctx context.Context) error {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 2)
	go func() { ended <- c.keep(ctx, "watch", c.watch) }()
	go func() { ended <- c.keep(ctx, "attached stream", c.attach) }()
	err := <-ended
	stop()
	<-ended
	return err
}

// wait pauses before attempt n, but no longer than until the other stream has the connection back.
func (c *Client) wait(ctx context.Context, n int) bool {
	pausing, cancel := context.WithCancel(ctx)
	defer cancel()
	if state := c.conn.GetState(); state != connectivity.Ready {
		go func() {
			for state != connectivity.Ready && c.conn.WaitForStateChange(pausing, state) {
				state = c.conn.GetState()
			}
			cancel()
		}()
	}
	pause(pausing, n)
	return ctx.Err() == nil
}

// keep opens one stream again and again. The stream calls `good` when all is well, and the count starts anew.
func (c *Client) keep(ctx context.Context, name string, stream func(ctx context.Context, good func()) error) error {
	for n, fresh := 0, false; c.wait(ctx, n); n++ {
		var err error
		if c.conn.GetState() != connectivity.Ready {
			err = c.identify(ctx) // the certificate may be a new one
			c.conn.ResetConnectBackoff()
		}
		token := c.currentToken()
		if err == nil && token == "" {
			err = c.logIn(ctx, "")
			token = c.currentToken()
		}
		if err == nil {
			once, cancel := context.WithCancel(bearer(ctx, token))
			err = stream(once, func() { n, fresh = -1, false })
			cancel()
			if err == nil {
				return nil
			}
		}
		if Reason(err) == "TOKEN_INVALID" {
			if err = c.logIn(ctx, token); err == nil && !fresh {
				n, fresh = -1, true // "repeat it, once": if the new token is void too, the pauses grow
			}
		}
		if err != nil && ctx.Err() == nil {
			c.Events.Note(fmt.Sprintf("the %s broke: %v", name, err))
			if !passing(err) {
				return err
			}
		}
	}
	return ctx.Err()
}
