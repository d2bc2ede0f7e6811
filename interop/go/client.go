// Package socp is a client of SOCP, after docs/PROTOCOL.md and the contracts alone.
//
// To use it, copy this file, generate stubs as `build` does, and:
//
//	key, err := rsa.GenerateKey(rand.Reader, 4096)
//	c, err := socp.Dial(ctx, socp.Config{Server: "127.0.0.1:7443", ServerID: id, CA: ca, Name: "alice", Key: key})
//	err = c.Register(ctx, "")
//	go c.Run(ctx)
//	err = c.Tell(ctx, "bob@server-b", "hello")
//
// `exchange` is a program around it.
package socp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	mathrand "math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "socp.example/interop/gen/socp/v1"
)

const (
	firstPause   = 100 * time.Millisecond // "a random time between 0 and min(5 s, 100 ms * 2^n)"
	longestPause = 5 * time.Second
	callTimeout  = 15 * time.Second // "a server waits up to 5 s for another"
	silence      = 35 * time.Second // two bookmarks missed: the stream is dead
	maxStatement = 67584
	maxWraps     = 4096
	keptKeys     = 64
)

// Who identifies a user; a server's name is only a label.
type Who struct{ Name, Home string }

// Key is what one key statement says.
type Key struct {
	Number            uint64
	Public            *rsa.PublicKey
	Fingerprint, Hash [32]byte
}

// Text is a message or a post that was opened.
type Text struct {
	From     Who
	ID, Text string
	ToAll    bool
	TimeMS   int64
}

// Config says who one is, and where. The functions are called one at a time for each stream, and must not block.
type Config struct {
	Server, ServerID string // HOST:PORT, and the pinned id
	CA               *x509.CertPool
	Name             string
	Key              *rsa.PrivateKey
	Attached         func()
	Added, Updated   func(*pb.DirectoryEntry)
	Removed          func(*pb.DirectoryEntry)
	Received         func(*Text)
	Note             func(string) // what a person should know: breaks, unreadable messages, changed keys
}

// View is a summary of what the watch shows.
type View struct {
	Digest      string `json:"digest"`
	Users       int    `json:"users"`
	Resumed     int    `json:"resumed"`
	StartedOver int    `json:"started_over"`
	Mismatched  int    `json:"mismatched"`
}

// Client is one session of one user.
type Client struct {
	Config
	Accounts  pb.AccountServiceClient
	Directory pb.DirectoryServiceClient
	Messages  pb.MessageServiceClient

	conn    *grpc.ClientConn
	mine    []byte // own public key, SubjectPublicKeyInfo
	login   sync.Mutex
	posting sync.Mutex

	mu     sync.Mutex // for all that follows
	proven [32]byte   // hash of the certificate key that the server's identity has signed
	token  string
	view   map[Who]*pb.DirectoryEntry
	resume string
	counts View
	pins   map[Who]*Key // in memory; a program to be trusted tomorrow keeps number and fingerprint on disk
	shown  map[[2]any]bool
	kept   map[Who][]keptKey
	own    channelKey
}

// keptKey is a channel key of somebody else.
type keptKey struct{ id, key []byte }

// channelKey is the own one of this run, and who has it. An entry of the view is replaced whenever the user is added
// or updated, so a member has the key only as long as the very same entry is in the view: "a session that is new cannot
// have it".
type channelKey struct {
	id, key []byte
	counter uint64
	given   map[Who][]byte             // statement hash of everybody who was ever given it
	has     map[Who]*pb.DirectoryEntry // whose home has said that a wrap was handed over
}

// errIdentity means that the server is not the pinned one. It is never retried.
var errIdentity = errors.New("the server is not the pinned one")

// --- Signing, names and hashes ---

var (
	nameForm = regexp.MustCompile(`^[a-z0-9._-]{1,64}$`)
	idForm   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	uuidForm = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	pss      = &rsa.PSSOptions{SaltLength: 32, Hash: crypto.SHA256}
	// What stands before the raw key in the SubjectPublicKeyInfo of an Ed25519 key.
	ed25519Prefix = []byte{0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00}
)

// labelled is what is signed or hashed: a label, a zero byte, and the bytes as they came.
func labelled(label string, parts ...[]byte) []byte {
	return append([]byte(label+"\x00"), bytes.Join(parts, nil)...)
}

// Sign signs an encoded statement: RSA-PSS, SHA-256, salt of 32 bytes.
func (c *Client) Sign(label string, statement []byte) []byte {
	hash := sha256.Sum256(labelled(label, statement))
	signature, err := rsa.SignPSS(rand.Reader, c.Key, crypto.SHA256, hash[:], pss)
	if err != nil {
		panic(err) // Dial has checked the key
	}
	return signature
}

func verify(key *rsa.PublicKey, label string, statement, signature []byte) error {
	hash := sha256.Sum256(labelled(label, statement))
	return rsa.VerifyPSS(key, crypto.SHA256, hash[:], signature, pss)
}

// parseKey takes a public key in its one acceptable form: RSA of 4096 bits, exponent 65537.
func parseKey(der []byte) (*rsa.PublicKey, error) {
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(*rsa.PublicKey)
	if err != nil || !ok || key.N.BitLen() != 4096 || key.E != 65537 {
		return nil, errors.New("not an RSA key of 4096 bits")
	}
	if again, err := x509.MarshalPKIXPublicKey(key); err != nil || !bytes.Equal(again, der) {
		return nil, errors.New("a key in another form")
	}
	return key, nil
}

// encode makes the bytes of a new statement or header; those of others are never encoded again.
func encode(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // only for text that is not UTF-8
	}
	return b
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// newID makes a UUIDv7.
func newID(now time.Time) string {
	b := random(16)
	binary.BigEndian.PutUint64(b, uint64(now.UnixMilli())<<16|uint64(b[6]&0x0f|0x70)<<8|uint64(b[7]))
	b[8] = b[8]&0x3f | 0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// Digest is that of a set of entries, to be compared with the server's. It is a sum, so a large view would add and
// subtract entries as they change; this adds all anew.
func Digest(entries map[Who]*pb.DirectoryEntry) [32]byte {
	var sums [1024]uint16
	be := binary.BigEndian
	for _, e := range entries {
		home, _ := hex.DecodeString(e.ServerId)
		b := be.AppendUint64(labelled("socp.v1.DigestEntry", home), e.Epoch)
		for _, text := range []string{e.Name, e.DisplayName, e.Status} {
			b = append(be.AppendUint64(b, uint64(len(text))), text...)
		}
		b = be.AppendUint64(append(b, e.KeyStatementSha256...), e.OnlineSince)
		seed := sha256.Sum256(be.AppendUint64(b, uint64(e.Sessions)))
		for i := range 64 {
			block := sha256.Sum256(be.AppendUint32(seed[:], uint32(i)))
			for j := range 16 {
				sums[16*i+j] += binary.LittleEndian.Uint16(block[2*j:])
			}
		}
	}
	out := labelled("socp.v1.Digest")
	for _, sum := range sums {
		out = binary.LittleEndian.AppendUint16(out, sum)
	}
	return sha256.Sum256(out)
}

// --- Errors ---

// Reason is why the server refused, a name of the enum `Reason`; empty if the network or the library did.
func Reason(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "socp" {
			return info.Reason
		}
	}
	return ""
}

// resumeToken is the one that comes with the end of a watch.
func resumeToken(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok && info.Domain == "socp" {
			return info.Metadata["resume_token"]
		}
	}
	return ""
}

// passing tells whether the same may succeed later. A reason not named here is treated by its code.
func passing(err error) bool {
	switch Reason(err) {
	case "TOKEN_INVALID", "TOO_MANY", "REVISION_COMPACTED", "RESUME_TOKEN_INVALID":
		return true
	}
	switch status.Code(err) { // that of an error that is no status is Unknown
	case codes.Unavailable, codes.Canceled, codes.DeadlineExceeded, codes.Unknown, codes.Internal:
		return !errors.Is(err, errIdentity)
	}
	return false
}

// pause waits a random time before attempt n (from 0), so that the clients of a server that is back do not all come at
// the same moment. It is false if the context ended.
func pause(ctx context.Context, n int) bool {
	select {
	case <-time.After(mathrand.N(min(longestPause, firstPause<<min(n, 10)))):
		return true
	case <-ctx.Done():
		return false
	}
}

// --- Which server, and who one is there ---

// Dial checks that the pinned server answers at the address. It does not log in.
func Dial(ctx context.Context, config Config) (*Client, error) {
	mine, err := x509.MarshalPKIXPublicKey(&config.Key.PublicKey)
	if err != nil {
		return nil, err
	}
	if _, err := parseKey(mine); err != nil {
		return nil, err
	}
	nothing, noEntry := func() {}, func(*pb.DirectoryEntry) {}
	c := &Client{Config: config, mine: mine,
		view: map[Who]*pb.DirectoryEntry{}, pins: map[Who]*Key{}, shown: map[[2]any]bool{}, kept: map[Who][]keptKey{}}
	c.Attached, c.Added, c.Updated, c.Removed = or(c.Attached, nothing), or(c.Added, noEntry), or(c.Updated, noEntry), or(c.Removed, noEntry)
	c.Received, c.Note = or(c.Received, func(*Text) {}), or(c.Note, func(string) {})
	if err := c.identify(ctx); err != nil {
		return nil, err
	}
	// The connection that carries tokens is made only to the certificate that the identity has signed. The library
	// connects anew by itself, so the check is a part of the handshake.
	c.conn, err = c.open(func(state tls.ConnectionState) error {
		c.mu.Lock()
		defer c.mu.Unlock()
		if sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo) != c.proven {
			return errors.New("not the certificate that the server's identity has signed")
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	c.Accounts, c.Directory, c.Messages = pb.NewAccountServiceClient(c.conn), pb.NewDirectoryServiceClient(c.conn), pb.NewMessageServiceClient(c.conn)
	return c, nil
}

func or[F func() | func(*pb.DirectoryEntry) | func(*Text) | func(string)](f, otherwise F) F {
	if f == nil {
		return otherwise
	}
	return f
}

func (c *Client) open(check func(tls.ConnectionState) error) (*grpc.ClientConn, error) {
	return grpc.NewClient(c.Server,
		// Trusts the server's own CA only, which "signs for nothing else".
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: c.CA, MinVersion: tls.VersionTLS13, VerifyConnection: check})),
		// Pings notice a dead path; 10 s is the shortest that this library takes.
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 5 * time.Second, PermitWithoutStream: true}))
}

// identify asks the server who it is, over a connection of its own, and checks the proof.
func (c *Client) identify(ctx context.Context) error {
	var seen [32]byte
	conn, err := c.open(func(state tls.ConnectionState) error {
		seen = sha256.Sum256(state.PeerCertificates[0].RawSubjectPublicKeyInfo)
		return nil
	})
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	info, err := pb.NewAccountServiceClient(conn).GetServerInfo(ctx, &pb.GetServerInfoRequest{})
	if err != nil {
		return err
	}
	var said pb.CertificateStatement
	raw, ok := bytes.CutPrefix(info.IdentityKey, ed25519Prefix)
	id := sha256.Sum256(info.IdentityKey)
	switch {
	case !ok || len(raw) != 32 || hex.EncodeToString(id[:]) != c.ServerID || info.ServerId != c.ServerID:
		return fmt.Errorf("%w: another identity", errIdentity)
	case !ed25519.Verify(raw, labelled("socp.v1.CertificateStatement", info.CertificateStatement), info.CertificateSignature):
		return fmt.Errorf("%w: its signature is wrong", errIdentity)
	case proto.Unmarshal(info.CertificateStatement, &said) != nil || said.ServerId != c.ServerID || !bytes.Equal(said.CertificateKeySha256, seen[:]):
		return fmt.Errorf("%w: the certificate is not its own", errIdentity)
	case !strings.HasPrefix(info.ProtocolVersion, "1."):
		return fmt.Errorf("%w: it speaks version %q", errIdentity, info.ProtocolVersion)
	}
	c.mu.Lock()
	c.proven = seen
	c.mu.Unlock()
	return nil
}

// Register claims the name with the key. "Registering again with the same key is answered like the first time."
func (c *Client) Register(ctx context.Context, invite string) error {
	statement := encode(&pb.KeyStatement{User: c.Name, HomeId: c.ServerID, PublicKey: c.mine, Number: 1})
	signed := &pb.SignedKeyStatement{Statement: statement, Signature: c.Sign("socp.v1.KeyStatement", statement)}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	_, err := c.Accounts.Register(ctx, &pb.RegisterRequest{KeyStatement: signed, Invite: invite})
	return err
}

// SignLogin answers a challenge. It names the pinned server, never one from an answer.
func (c *Client) SignLogin(nonce []byte) *pb.LogInRequest {
	statement := encode(&pb.LoginStatement{ServerId: c.ServerID, User: c.Name, Nonce: nonce})
	return &pb.LogInRequest{Statement: statement, Signature: c.Sign("socp.v1.LoginStatement", statement), Device: "sample in Go"}
}

// LogIn opens a session in place of the one whose token is void; no more than one at a time.
func (c *Client) LogIn(ctx context.Context, void string) error {
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
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.token = answer.Token
	c.mu.Unlock()
	return nil
}

func (c *Client) currentToken() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.token
}

// Call repeats a request, with the very same bytes, until it is answered, refused for good, or the context ends.
func Call[Q, A any](ctx context.Context, c *Client, rpc func(context.Context, *Q, ...grpc.CallOption) (*A, error), ask *Q) (*A, error) {
	for n := 0; ; n++ {
		token := c.currentToken()
		once, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), callTimeout)
		answer, err := rpc(once, ask)
		cancel()
		if Reason(err) == "TOKEN_INVALID" {
			if err = c.LogIn(ctx, token); err == nil {
				continue
			}
		}
		if err == nil || !passing(err) || !pause(ctx, n) {
			return answer, err
		}
	}
}

// --- Staying connected ---

// Run watches and attaches, and comes back after every break, until the context ends or it cannot be helped. It returns
// nil after Leave.
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

// keep opens one stream again and again. The stream calls `good` when all is well; pauses are short again after that.
func (c *Client) keep(ctx context.Context, name string, stream func(ctx context.Context, good func()) error) error {
	for n := 0; pause(ctx, n); n++ {
		var err error
		token := c.currentToken()
		if c.conn.GetState() != connectivity.Ready {
			err = c.identify(ctx) // the certificate may be a new one; nothing secret is sent before this is right
			c.conn.ResetConnectBackoff()
		}
		if err == nil && token == "" {
			err = c.LogIn(ctx, "")
			token = c.currentToken()
		}
		if err == nil {
			in, cancel := context.WithCancel(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token))
			err = stream(in, func() { n = -1 })
			cancel()
		}
		if Reason(err) == "TOKEN_INVALID" {
			err = c.LogIn(ctx, token)
		} else if err == nil {
			return nil
		}
		if err != nil && ctx.Err() == nil {
			c.Note(fmt.Sprintf("the %s broke: %v", name, err))
			if !passing(err) {
				return err
			}
		}
	}
	return ctx.Err()
}

// watch keeps the view as the server sends it, once.
func (c *Client) watch(ctx context.Context, good func()) error {
	c.mu.Lock()
	resume := c.resume
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	alarm := time.AfterFunc(silence, cancel)
	defer alarm.Stop()
	stream, err := c.Directory.WatchDirectory(ctx, &pb.WatchDirectoryRequest{ResumeToken: resume}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	// The headers of a refusal come with its end: then there are none here.
	if header, err := stream.Header(); err == nil && header != nil && resume != "" {
		c.count(func() { c.counts.Resumed++ })
	}
	var staged map[Who]*pb.DirectoryEntry // the state being loaded; the old view stays in sight until its end mark
	if resume == "" {
		staged = map[Who]*pb.DirectoryEntry{}
	}
	for seen := uint64(0); ; alarm.Reset(silence) {
		m, err := stream.Recv()
		switch reason := Reason(err); {
		case reason == "REVISION_COMPACTED" || reason == "RESUME_TOKEN_INVALID":
			c.count(func() { c.counts.StartedOver++; c.resume = "" })
		case err != nil && staged == nil && resumeToken(err) != "":
			c.count(func() { c.resume = resumeToken(err) })
		}
		if err != nil {
			return err
		}
		var tell []func()
		c.mu.Lock()
		err = c.take(m, &staged, &seen, &tell)
		if err != nil {
			c.resume = "" // start over
		}
		c.mu.Unlock()
		for _, each := range tell {
			each()
		}
		if err != nil {
			return err
		}
		if staged == nil {
			good()
		}
	}
}

func (c *Client) count(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

// take applies one message to the view, and adds to `tell` what is to be told. An error means: start over.
func (c *Client) take(m *pb.WatchDirectoryResponse, staged *map[Who]*pb.DirectoryEntry, seen *uint64, tell *[]func()) error {
	put := func(e *pb.DirectoryEntry) {
		who := Who{e.Name, e.ServerId}
		if *staged != nil {
			(*staged)[who] = e
			return
		}
		*tell = append(*tell, c.told(c.view[who], e))
		c.view[who] = e
	}
	for _, change := range m.Changes {
		if change.Revision < *seen {
			return errors.New("a revision went back")
		}
		*seen = change.Revision
		switch what := change.Change.(type) {
		case *pb.DirectoryChange_Added:
			put(what.Added)
		case *pb.DirectoryChange_Updated:
			put(what.Updated)
		case *pb.DirectoryChange_Removed:
			who := Who{what.Removed.Name, what.Removed.ServerId}
			if *staged != nil {
				delete(*staged, who)
			} else if old := c.view[who]; old != nil {
				delete(c.view, who)
				*tell = append(*tell, func() { c.Removed(old) })
			}
		}
	}
	var digest []byte
	if mark := m.EndMark; mark != nil && *staged != nil {
		if mark.Entries != uint64(len(*staged)) {
			return errors.New("the state is not complete")
		}
		old := c.view
		c.view, *staged, *seen, digest = *staged, nil, mark.Revision, mark.Digest
		for who, e := range old { // only differences are told
			if c.view[who] == nil {
				*tell = append(*tell, func() { c.Removed(e) })
			}
		}
		for who, e := range c.view {
			if !proto.Equal(old[who], e) {
				*tell = append(*tell, c.told(old[who], e))
			}
		}
	}
	if m.Bookmark != nil && *staged == nil {
		*seen, digest = m.Bookmark.Revision, m.Bookmark.Digest
	}
	if mine := Digest(c.view); len(digest) > 0 && !bytes.Equal(digest, mine[:]) {
		c.counts.Mismatched++
		return errors.New("the digest is another")
	}
	if m.ResumeToken != "" && *staged == nil { // a token that outlives its view is useless
		c.resume = m.ResumeToken
	}
	return nil
}

func (c *Client) told(old, e *pb.DirectoryEntry) func() {
	if old == nil {
		return func() { c.Added(e) }
	}
	return func() { c.Updated(e) }
}

// Find gives the entry of a user who is online, by `name@server-name`.
func (c *Client) Find(user string) *pb.DirectoryEntry {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range c.view {
		if e.User == user {
			return e
		}
	}
	return nil
}

// View tells what the watch shows, and how it fared.
func (c *Client) View() View {
	c.mu.Lock()
	defer c.mu.Unlock()
	view, digest := c.counts, Digest(c.view)
	view.Users, view.Digest = len(c.view), hex.EncodeToString(digest[:])
	return view
}

// attach receives, once; holding the stream open is being online. It ends with nil when the session was detached.
func (c *Client) attach(ctx context.Context, good func()) error {
	ctx, cancel := context.WithCancel(ctx)
	alarm := time.AfterFunc(callTimeout, cancel) // for the first event; from then on the pings tell
	defer alarm.Stop()
	stream, err := c.Messages.Attach(ctx, &pb.AttachRequest{}, grpc.WaitForReady(true))
	for err == nil {
		var m *pb.AttachResponse
		if m, err = stream.Recv(); err != nil {
			break
		}
		var text *Text
		switch event := m.Event.(type) {
		case *pb.AttachResponse_Attached:
			alarm.Stop()
			good()
			c.Attached()
		case *pb.AttachResponse_Message:
			text, err = c.openMessage(ctx, event.Message.Message)
		case *pb.AttachResponse_Post:
			text, err = c.openPost(ctx, event.Post.Post, event.Post.WrappedChannelKey)
		}
		if err != nil {
			c.Note(fmt.Sprintf("something unreadable came: %v", err)) // the sender is not told why
			err = nil
		} else if text != nil {
			c.Received(text)
		}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// Leave goes offline and ends the session.
func (c *Client) Leave(ctx context.Context) error {
	_, err := Call(ctx, c, c.Messages.Detach, &pb.DetachRequest{})
	_, err2 := Call(ctx, c, c.Accounts.LogOut, &pb.LogOutRequest{})
	return errors.Join(err, err2, c.conn.Close())
}

// --- Keys of others ---

// readKey checks a key statement of a user. `hash` is that of the entry it came in, if it did; `before` is what the
// statement before it says, if it is one of a chain.
func readKey(s *pb.SignedKeyStatement, who Who, hash []byte, before *Key) (*Key, error) {
	if len(s.GetStatement())+len(s.GetSignature())+len(s.GetPreviousSignature()) > 8192 {
		return nil, errors.New("the key statement is too large")
	}
	var said pb.KeyStatement
	if err := proto.Unmarshal(s.GetStatement(), &said); err != nil {
		return nil, err
	}
	var parts []byte
	for _, part := range [][]byte{s.GetStatement(), s.GetSignature(), s.GetPreviousSignature()} {
		parts = append(binary.BigEndian.AppendUint32(parts, uint32(len(part))), part...)
	}
	public, err := parseKey(said.PublicKey)
	if err != nil {
		return nil, err
	}
	key := &Key{said.Number, public, sha256.Sum256(said.PublicKey), sha256.Sum256(labelled("socp.v1.SignedKeyStatement", parts))}
	rest := 32 // bytes of what a first statement has not
	if said.Number == 1 {
		rest = 0
	}
	switch {
	case said.User != who.Name || said.HomeId != who.Home:
		return nil, errors.New("the key statement is of another user")
	case said.Number < 1 || len(said.PreviousSha256) != rest || len(s.PreviousSignature) != 16*rest:
		return nil, errors.New("the key statement has a wrong number")
	case hash != nil && !bytes.Equal(hash, key.Hash[:]):
		return nil, errors.New("the key statement is not the one that the entry names")
	case verify(public, "socp.v1.KeyStatement", s.Statement, s.Signature) != nil:
		return nil, errors.New("the key statement's signature is wrong")
	case before != nil && (said.Number != before.Number+1 || !bytes.Equal(said.PreviousSha256, before.Hash[:]) ||
		verify(before.Public, "socp.v1.KeyStatement", s.Statement, s.PreviousSignature) != nil):
		return nil, errors.New("the key statement does not follow the one before it")
	}
	return key, nil
}

// keyOf gives the key of a user that has the fingerprint, if it may be believed: the pinned one, the first one ever
// seen, or one that a whole chain of statements leads to from the pinned one.
func (c *Client) keyOf(ctx context.Context, who Who, fingerprint []byte) (*Key, error) {
	c.mu.Lock()
	pin, entry := c.pins[who], c.view[who]
	c.mu.Unlock()
	if pin != nil && bytes.Equal(pin.Fingerprint[:], fingerprint) {
		return pin, nil
	}
	var key *Key
	var err error
	if pin == nil && entry != nil && entry.KeyStatement != nil {
		key, err = readKey(entry.KeyStatement, who, entry.KeyStatementSha256, nil)
	} else {
		key, err = c.chain(ctx, who, pin)
	}
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.pins[who] != pin {
		return nil, errors.New("the key was pinned meanwhile; once more")
	}
	c.pins[who] = key
	if !bytes.Equal(key.Fingerprint[:], fingerprint) {
		return nil, fmt.Errorf("KEY CHANGED: %s has another key than the one that is believed", who.Name)
	}
	return key, nil
}

// chain follows a user's key statements from the first to the last, which must pass the pinned key.
func (c *Client) chain(ctx context.Context, who Who, pin *Key) (*Key, error) {
	answer, err := Call(ctx, c, c.Directory.GetUser, &pb.GetUserRequest{User: who.Name + "@" + who.Home})
	if err != nil {
		return nil, err
	}
	if !strings.HasPrefix(answer.User, who.Name+"@") || answer.ServerId != who.Home || len(answer.KeyStatements) == 0 {
		return nil, errors.New("the answer is about another user")
	}
	var last *Key
	passed := pin == nil
	for i, s := range answer.KeyStatements {
		if last, err = readKey(s, who, nil, last); err != nil {
			return nil, err
		}
		if i == 0 && last.Number != 1 {
			return nil, errors.New("the chain has no beginning")
		}
		passed = passed || last.Number == pin.Number && last.Fingerprint == pin.Fingerprint
	}
	if !passed {
		return nil, fmt.Errorf("KEY CHANGED: no chain leads from the pinned key of %s to the new one", who.Name)
	}
	return last, nil
}

// --- Sealing and opening ---

// gcm is AES-256-GCM under a key that the commitment binds: "GCM alone does not commit to its key".
func gcm(key []byte) (aead cipher.AEAD, commitment []byte) {
	block, err := aes.NewCipher(key)
	if err == nil {
		aead, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic(err) // callers have 32 bytes
	}
	sum := sha256.Sum256(labelled("socp.v1.KeyCommitment", key))
	return aead, sum[:]
}

// decrypt opens a ciphertext with the header as it was received.
func decrypt(key, commitment, nonce, ciphertext, header []byte) (string, error) {
	aead, ours := gcm(key)
	if !bytes.Equal(ours, commitment) {
		return "", errors.New("the key is not the one committed to")
	}
	text, err := aead.Open(nil, nonce, ciphertext, header)
	if err == nil && !utf8.Valid(text) {
		err = errors.New("the text is not UTF-8")
	}
	return string(text), err
}

func wrap(public *rsa.PublicKey, key []byte) []byte {
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, key, nil)
	if err != nil {
		panic(err) // 32 bytes fit any acceptable key
	}
	return wrapped
}

func (c *Client) unwrap(wrapped []byte) ([]byte, error) {
	key, err := rsa.DecryptOAEP(sha256.New(), nil, c.Key, wrapped, nil)
	if err != nil || len(key) != 32 {
		return nil, errors.New("the wrapped key does not open")
	}
	return key, nil
}

// postKey derives the key of one post from the channel key.
func postKey(channelKey, salt []byte, messageID string) ([]byte, error) {
	return hkdf.Key(sha256.New, channelKey, salt, string(labelled("socp.v1.PostKey", []byte(messageID))), 32)
}

// Fingerprint is that of the own key.
func (c *Client) Fingerprint() []byte {
	sum := sha256.Sum256(c.mine)
	return sum[:]
}

// Seal makes a message to a user who has the key. What is sent again later is this very message, not a new one.
func (c *Client) Seal(to Who, public *rsa.PublicKey, fingerprint []byte, text string) *pb.SealedMessage {
	now := time.Now()
	header := encode(&pb.MessageHeader{Suite: 1, MessageId: newID(now), Sender: c.Name, SenderHomeId: c.ServerID,
		SenderKeySha256: c.Fingerprint(), Recipient: to.Name, RecipientHomeId: to.Home, RecipientKeySha256: fingerprint,
		TimeUnixMs: now.UnixMilli()})
	key, nonce := random(32), random(12)
	aead, commitment := gcm(key)
	statement := encode(&pb.MessageStatement{Header: header, Nonce: nonce, KeyCommitment: commitment,
		Ciphertext: aead.Seal(nil, nonce, []byte(text), header)})
	return &pb.SealedMessage{Statement: statement, Signature: c.Sign("socp.v1.MessageStatement", statement), WrappedKey: wrap(public, key)}
}

// Tell sends a text to a user who is online. It returns nil when the recipient's home has signed that it was handed over.
func (c *Client) Tell(ctx context.Context, user, text string) error {
	for again := true; ; again = false {
		e := c.Find(user)
		if e == nil {
			return fmt.Errorf("%s is not online", user)
		}
		to := Who{e.Name, e.ServerId}
		fingerprint, _ := hex.DecodeString(e.KeyFingerprint)
		key, err := c.keyOf(ctx, to, fingerprint)
		if err != nil {
			return err
		}
		sealed := c.Seal(to, key.Public, key.Fingerprint[:], text)
		err = c.Send(ctx, to.Home, sealed)
		if Reason(err) == "RECIPIENT_KEY_CHANGED" && again && pause(ctx, 3) {
			continue // the watch brings the new key; it is sealed anew
		}
		return err
	}
}

// Send sends a sealed message, and believes the outcome only if the recipient's home has signed it.
func (c *Client) Send(ctx context.Context, to string, sealed *pb.SealedMessage) error {
	answer, err := Call(ctx, c, c.Messages.SendMessage, &pb.SendMessageRequest{Message: sealed})
	if err != nil {
		return err
	}
	outcome, home, err := checkOutcome(answer.Outcome, sealed.Statement)
	if err != nil || home != to || outcome.Kind != pb.OutcomeKind_OUTCOME_KIND_HANDED_OVER {
		return errors.New("what became of the message is not known")
	}
	return nil
}

// checkOutcome finds what a home says of a statement, and which home says it.
func checkOutcome(s *pb.SignedOutcome, statement []byte) (*pb.Outcome, string, error) {
	var said pb.OutcomeStatement
	id := sha256.Sum256(slices.Concat(ed25519Prefix, s.GetHomeKey()))
	home, sum := hex.EncodeToString(id[:]), sha256.Sum256(statement)
	switch {
	case len(s.GetHomeKey()) != 32 || !ed25519.Verify(s.HomeKey, labelled("socp.v1.OutcomeStatement", s.Statement), s.Signature):
		return nil, "", errors.New("the outcome's signature is wrong")
	case proto.Unmarshal(s.Statement, &said) != nil || said.HomeId != home:
		return nil, "", errors.New("the outcome is another home's")
	}
	for _, outcome := range said.Outcomes {
		if bytes.Equal(outcome.StatementSha256, sum[:]) {
			return outcome, home, nil
		}
	}
	return nil, "", errors.New("the outcome is of another message")
}

// All posts a text to everybody who is online. It returns to how many it was handed, and the homes that are silent.
func (c *Client) All(ctx context.Context, text string) (uint32, []string, error) {
	c.posting.Lock()
	defer c.posting.Unlock()
	c.mu.Lock()
	members := maps.Clone(c.view)
	c.mu.Unlock()
	delete(members, Who{c.Name, c.ServerID})
	own := &c.own
	changed := own.key == nil
	for who, e := range members { // a member's key is another one now: the old one is not to read on
		hash, was := own.given[who]
		changed = changed || was && !bytes.Equal(hash, e.KeyStatementSha256)
	}
	if changed {
		*own = channelKey{id: random(16), key: random(32), given: map[Who][]byte{}, has: map[Who]*pb.DirectoryEntry{}}
	}
	now := time.Now()
	id, salt, nonce := newID(now), random(32), random(12)
	header := encode(&pb.PostHeader{Suite: 1, MessageId: id, Sender: c.Name, SenderHomeId: c.ServerID, SenderKeySha256: c.Fingerprint(),
		Channel: "public", KeyId: own.id, Salt: salt, Counter: own.counter, TimeUnixMs: now.UnixMilli()})
	own.counter++
	key, err := postKey(own.key, salt, id)
	if err != nil {
		return 0, nil, err
	}
	aead, commitment := gcm(key)
	statement := encode(&pb.PostStatement{Header: header, Nonce: nonce, KeyCommitment: commitment,
		Ciphertext: aead.Seal(nil, nonce, []byte(text), header)})
	ask := &pb.PostToChannelRequest{Post: &pb.SealedPost{Statement: statement, Signature: c.Sign("socp.v1.PostStatement", statement)}}
	wrapped, homes := map[Who]*pb.DirectoryEntry{}, map[string]bool{}
	for who, e := range members {
		homes[who.Home] = true
		if own.has[who] == e || len(ask.Wraps) == maxWraps { // beyond that, with the next post
			continue
		}
		fingerprint, _ := hex.DecodeString(e.KeyFingerprint)
		public, err := c.keyOf(ctx, who, fingerprint)
		if err != nil { // gets none
			c.Note(fmt.Sprintf("no post to %s: %v", e.User, err))
			continue
		}
		wrapped[who], own.given[who] = e, e.KeyStatementSha256
		ask.Wraps = append(ask.Wraps, &pb.ChannelKeyWrap{Recipient: who.Name, RecipientHomeId: who.Home,
			RecipientKeySha256: public.Fingerprint[:], WrappedKey: wrap(public.Public, own.key)})
	}
	answer, err := Call(ctx, c, c.Messages.PostToChannel, ask)
	if err != nil {
		return 0, nil, err
	}
	var recipients uint32
	for _, signed := range answer.Outcomes {
		outcome, home, err := checkOutcome(signed, statement)
		if err != nil || !homes[home] || outcome.Kind != pb.OutcomeKind_OUTCOME_KIND_HANDED_OVER {
			continue
		}
		delete(homes, home) // counts once
		recipients += outcome.Recipients
		for who, e := range wrapped {
			if who.Home == home {
				own.has[who] = e
			}
		}
	}
	return recipients, slices.Collect(maps.Keys(homes)), nil
}

// remember tells whether a message is new; `mark` only when it has opened: "a forged message must not make the true
// one look like a repeat". A program that runs for months forgets those older than 8 days.
func (c *Client) remember(from Who, id string, mark bool) (isNew bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	isNew = !c.shown[[2]any{from, id}]
	if mark {
		c.shown[[2]any{from, id}] = true
	}
	return isNew
}

// checkSender checks the signature by the key that the directory and the pins give; never by one from the message.
func (c *Client) checkSender(ctx context.Context, from Who, fingerprint []byte, label string, statement, signature []byte) error {
	key, err := c.keyOf(ctx, from, fingerprint)
	if err != nil {
		return err
	}
	return verify(key.Public, label, statement, signature)
}

// openMessage opens a message to oneself, in the order of the protocol; nil without an error for a repeat.
func (c *Client) openMessage(ctx context.Context, m *pb.SealedMessage) (*Text, error) {
	var statement pb.MessageStatement
	var h pb.MessageHeader
	if len(m.GetStatement()) > maxStatement || len(m.GetSignature()) != 512 || len(m.GetWrappedKey()) != 512 ||
		proto.Unmarshal(m.Statement, &statement) != nil || proto.Unmarshal(statement.Header, &h) != nil ||
		h.Suite != 1 || !uuidForm.MatchString(h.MessageId) || !nameForm.MatchString(h.Sender) || !idForm.MatchString(h.SenderHomeId) ||
		len(h.SenderKeySha256) != 32 || len(statement.Nonce) != 12 || len(statement.KeyCommitment) != 32 {
		return nil, errors.New("it has not the form of a message")
	}
	from := Who{h.Sender, h.SenderHomeId}
	if !c.remember(from, h.MessageId, false) {
		return nil, nil
	}
	if h.Recipient != c.Name || h.RecipientHomeId != c.ServerID || !bytes.Equal(h.RecipientKeySha256, c.Fingerprint()) {
		return nil, errors.New("it is for somebody else")
	}
	if err := c.checkSender(ctx, from, h.SenderKeySha256, "socp.v1.MessageStatement", m.Statement, m.Signature); err != nil {
		return nil, err
	}
	key, err := c.unwrap(m.WrappedKey)
	if err != nil {
		return nil, err
	}
	text, err := decrypt(key, statement.KeyCommitment, statement.Nonce, statement.Ciphertext, statement.Header)
	if err != nil {
		return nil, err
	}
	c.remember(from, h.MessageId, true)
	return &Text{From: from, ID: h.MessageId, Text: text, TimeMS: h.TimeUnixMs}, nil
}

// openPost opens a post likewise; the channel key is one kept from an earlier post, or wrapped beside this one.
func (c *Client) openPost(ctx context.Context, p *pb.SealedPost, wrapped []byte) (*Text, error) {
	var statement pb.PostStatement
	var h pb.PostHeader
	if len(p.GetStatement()) > maxStatement || len(p.GetSignature()) != 512 || len(wrapped) != 0 && len(wrapped) != 512 ||
		proto.Unmarshal(p.Statement, &statement) != nil || proto.Unmarshal(statement.Header, &h) != nil ||
		h.Suite != 1 || !uuidForm.MatchString(h.MessageId) || !nameForm.MatchString(h.Sender) || !idForm.MatchString(h.SenderHomeId) ||
		h.Channel != "public" || len(h.KeyId) != 16 || len(h.Salt) != 32 ||
		len(h.SenderKeySha256) != 32 || len(statement.Nonce) != 12 || len(statement.KeyCommitment) != 32 {
		return nil, errors.New("it has not the form of a post")
	}
	from := Who{h.Sender, h.SenderHomeId}
	if !c.remember(from, h.MessageId, false) {
		return nil, nil
	}
	if err := c.checkSender(ctx, from, h.SenderKeySha256, "socp.v1.PostStatement", p.Statement, p.Signature); err != nil {
		return nil, err
	}
	open := func(channelKey []byte) (string, error) {
		key, err := postKey(channelKey, h.Salt, h.MessageId)
		if err != nil {
			return "", err
		}
		return decrypt(key, statement.KeyCommitment, statement.Nonce, statement.Ciphertext, statement.Header)
	}
	keyID := slices.Concat(h.SenderKeySha256, h.KeyId)
	c.mu.Lock()
	kept := c.kept[from]
	c.mu.Unlock()
	at := slices.IndexFunc(kept, func(k keptKey) bool { return bytes.Equal(k.id, keyID) })
	text, err := "", errors.New("its channel key is not here")
	if at >= 0 {
		text, err = open(kept[at].key)
	}
	if err != nil && len(wrapped) > 0 {
		var key []byte
		if key, err = c.unwrap(wrapped); err == nil {
			text, err = open(key)
		}
		if err == nil { // only one that opened a post is kept
			kept = slices.DeleteFunc(slices.Clone(kept), func(k keptKey) bool { return bytes.Equal(k.id, keyID) })
			kept = append(kept, keptKey{keyID, key})
			c.mu.Lock()
			c.kept[from] = kept[max(0, len(kept)-keptKeys):]
			c.mu.Unlock()
		}
	}
	if err != nil {
		return nil, err
	}
	c.remember(from, h.MessageId, true)
	return &Text{From: from, ID: h.MessageId, Text: text, ToAll: true, TimeMS: h.TimeUnixMs}, nil
}
