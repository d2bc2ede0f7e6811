// The exchange of interop/README.md. Run it with `./build && ./start --server HOST:PORT --server-id HEX --ca FILE
// --name NAME --partner USER@SERVER`.
package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	pb "socp.example/interop/gen/socp/v1"

	socp "socp.example/interop"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

// exchange holds what was seen of the partner's pings and of the own ones.
type exchange struct {
	*socp.Client
	partner string
	seen    chan socp.Who // the partner, once
	texts   chan *socp.Text
	folder  string // for files of the partner's
	bye     chan struct{}

	mu       sync.Mutex
	attached bool
	pinged   bool
	mine     map[string]bool // own nonces, and whether they came back
	opened   [2]bool         // a ping of the partner by tell, and one by all
	later    []string        // to be said once the partner is away
	queued   int
	settled  []string
	numbered []string                   // of posts `number`
	receipts map[string]map[string]bool // by kind the own messages that they speak of
}

func run() error {
	config := socp.Config{}
	flag.StringVar(&config.Server, "server", "", "the user's home, `HOST:PORT`")
	flag.StringVar(&config.ServerID, "server-id", "", "its id, `HEX`")
	flag.StringVar(&config.Name, "name", "", "the `NAME` of the user")
	ca := flag.String("ca", "", "the CA of its certificate, `FILE`")
	keyFile := flag.String("key", "", "where the private key is kept, `FILE`; a new one in memory if not said")
	folder := flag.String("files", "", "where files of the partner's are saved, `FOLDER`; none is fetched if not said")
	partner := flag.String("partner", "", "whom to talk to, `USER@SERVER`")
	flag.Func("receipts", "which are given, and asked for, `KIND`: delivered or read; none if not said", func(kind string) (err error) {
		config.Receipts, err = receiptKind(kind)
		return err
	})
	seconds := flag.Int("seconds", 120, "give up after so long, `N`")
	flag.Parse()
	if config.Server == "" || config.ServerID == "" || config.Name == "" || *ca == "" || *partner == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(*seconds)*time.Second)
	defer cancel()

	authority, err := os.ReadFile(*ca)
	if err != nil {
		return err
	}
	config.CA = x509.NewCertPool()
	if !config.CA.AppendCertsFromPEM(authority) {
		return fmt.Errorf("`%s` holds no certificate", *ca)
	}
	if config.Key, err = loadKey(*keyFile); err != nil {
		return err
	}
	if *keyFile != "" {
		if config.Device, err = socp.LoadDevice(*keyFile + ".device"); err != nil {
			return err
		}
	}
	x := &exchange{partner: *partner, folder: *folder, settled: []string{}, numbered: []string{}, receipts: map[string]map[string]bool{"delivered": {}, "read": {}}, mine: map[string]bool{nonce(): false, nonce(): false},
		seen: make(chan socp.Who, 1), texts: make(chan *socp.Text, 1000), bye: make(chan struct{})}
	config.Events = events{x, ctx}
	if x.Client, err = socp.Dial(ctx, config); err != nil {
		return err
	}
	if err := x.Register(ctx, ""); err != nil {
		return err
	}
	ended := make(chan error, 1)
	go func() { ended <- x.Run(ctx) }()
	go x.listen(ctx)
	select {
	case <-x.bye:
	case err := <-ended:
		return errors.Join(errors.New("the exchange was not finished"), err, x.missing())
	}
	if err := x.Leave(ctx); err != nil {
		return err
	}
	<-ended // what was received is noted
	return x.missing()
}

// events prints what happens, and passes on what counts.
type events struct {
	*exchange
	ctx context.Context
}

func (e events) Added(entry *pb.DirectoryEntry) {
	fmt.Println("came:", entry.User)
	e.see(e.ctx, false)
}
func (e events) Updated(entry *pb.DirectoryEntry) { fmt.Println("changed:", entry.User) }
func (e events) Removed(entry *pb.DirectoryEntry) {
	fmt.Println("went:", entry.User)
	if entry.User == e.partner {
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, argument := range e.later {
			go e.sayLater(e.ctx, argument)
		}
		e.later = nil
	}
}
func (e events) Settled(s *socp.Settled) {
	fmt.Println("settled:", s.MessageID, "to", s.To.Name, s.Kind, s.Reason)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.settled = append(e.settled, s.Kind.String())
}
func (e events) Attached()                { fmt.Println("online"); e.see(e.ctx, true) }
func (e events) Received(text *socp.Text) { e.texts <- text }
func (e events) Note(note string)         { fmt.Println(note) }

func receiptKind(name string) (pb.ReceiptKind, error) {
	switch name {
	case "delivered":
		return pb.ReceiptKind_RECEIPT_KIND_DELIVERED, nil
	case "read":
		return pb.ReceiptKind_RECEIPT_KIND_READ, nil
	}
	return 0, fmt.Errorf("`%s` is neither delivered nor read", name)
}

func receiptName(kind pb.ReceiptKind) string {
	if kind == pb.ReceiptKind_RECEIPT_KIND_READ {
		return "read"
	}
	return "delivered"
}

func nonce() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// see pings once, when the own user is online and the partner is in the directory.
func (x *exchange) see(ctx context.Context, attached bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.attached = x.attached || attached
	partner := x.Find(x.partner)
	if x.pinged || !x.attached || partner == nil {
		return
	}
	x.pinged = true
	x.seen <- socp.Who{Name: partner.Name, Home: partner.ServerId}
	byTell := true
	for nonce := range x.mine {
		if byTell {
			go x.say(ctx, "ping "+nonce)
		} else {
			go x.insist(ctx, "ping to all", func() error {
				entry := x.Find(x.partner)
				if entry == nil {
					return errors.New("the partner is away")
				}
				_, silent, err := x.All(ctx, "ping "+nonce)
				if err == nil && slices.Contains(silent, entry.ServerId) {
					err = errors.New("the partner's home is silent")
				}
				return err
			})
		}
		byTell = false
	}
}

func (x *exchange) say(ctx context.Context, text string) {
	x.insist(ctx, "`"+text+"`", func() error {
		kind, err := x.Tell(ctx, x.partner, text)
		if kind == pb.OutcomeKind_OUTCOME_KIND_QUEUED {
			fmt.Println("queued:", text)
			x.mu.Lock()
			x.queued++
			x.mu.Unlock()
		}
		return err
	})
}

func (x *exchange) sayLater(ctx context.Context, argument string) {
	x.say(ctx, "later "+argument)
	x.insist(ctx, "accepted", func() error {
		_, _, err := x.All(ctx, "accepted "+argument)
		return err
	})
}

// echo saves a file, and sends it back.
func (x *exchange) echo(ctx context.Context, file *pb.FileManifest) {
	path, err := x.ReceiveFile(ctx, file, x.folder, 2<<30)
	if err != nil {
		fmt.Println("not saved:", err)
		return
	}
	x.insist(ctx, path, func() error {
		_, err := x.SendFile(ctx, x.partner, path)
		return err
	})
}

// insist tries until it succeeds: the partner, its server or the own one may be away for a while.
func (x *exchange) insist(ctx context.Context, what string, try func() error) {
	for {
		err := try()
		if err == nil {
			fmt.Println("sent:", what)
			return
		}
		fmt.Printf("not sent: %s: %v\n", what, err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// listen takes what arrives, one after another, from when it is known who the partner is.
func (x *exchange) listen(ctx context.Context) {
	partner := <-x.seen
	for text := range x.texts {
		fmt.Printf("%s@%.8s (to all: %v): %q\n", text.From.Name, text.From.Home, text.ToAll, text.Text)
		if word, rest, _ := strings.Cut(text.Text, " "); text.ToAll && word == "number" {
			x.numbered = append(x.numbered, rest)
		} else if text.From == partner {
			x.received(ctx, text)
		}
	}
}

func (x *exchange) received(ctx context.Context, text *socp.Text) {
	if text.Receipt != nil {
		for _, id := range text.Answered {
			x.receipts[receiptName(text.Receipt.Kind)][id] = true
		}
		return
	}
	if text.File != nil {
		fmt.Printf("a file: %q, %d bytes\n", socp.SafeName(text.File.Name), text.File.Bytes)
		if x.folder != "" {
			go x.echo(ctx, text.File)
		}
		return
	}
	word, rest, _ := strings.Cut(text.Text, " ")
	switch word {
	case "ping":
		x.mu.Lock()
		if text.ToAll {
			x.opened[1] = true
		} else {
			x.opened[0] = true
		}
		x.mu.Unlock()
		go x.say(ctx, "pong "+rest)
	case "pong":
		x.mu.Lock()
		if _, own := x.mine[rest]; own {
			x.mine[rest] = true
		}
		x.mu.Unlock()
	case "view":
		go x.answer(ctx, "view", func() any { return x.View() })
	case "later":
		x.mu.Lock()
		x.later = append(x.later, rest)
		x.mu.Unlock()
	case "posts":
		posts := slices.Clone(x.numbered)
		go x.answer(ctx, "posts", func() any { return posts })
	case "receipts":
		counts := map[string]int{}
		for kind, ids := range x.receipts {
			counts[kind] = len(ids)
		}
		go x.answer(ctx, "receipts", func() any { return counts })
	case "outcomes":
		go x.answer(ctx, "outcomes", func() any {
			x.mu.Lock()
			defer x.mu.Unlock()
			return map[string]any{"queued": x.queued, "settled": slices.Clone(x.settled)}
		})
	case "refusals":
		go x.answer(ctx, "refusals", func() any { return x.refusals(ctx) })
	case "bye": // the last word; a message is never received twice
		close(x.bye)
	}
}

func (x *exchange) answer(ctx context.Context, word string, what func() any) {
	text, err := json.Marshal(what())
	if err != nil {
		panic(err) // text and numbers
	}
	x.say(ctx, word+" "+string(text))
}

// refusals provokes some, and gives the reasons.
func (x *exchange) refusals(ctx context.Context) map[string]string {
	reasons := map[string]string{}
	note := func(what string, err error) {
		if reasons[what] = socp.Reason(err); reasons[what] == "" {
			fmt.Printf("%s: no reason: %v\n", what, err)
		}
	}

	challenge, err := x.Accounts.CreateChallenge(ctx, &pb.CreateChallengeRequest{User: x.Name})
	if err == nil {
		login := x.SignLogin(challenge.Nonce)
		var session *pb.LogInResponse
		if session, err = x.Accounts.LogIn(ctx, login); err == nil {
			_, err = x.Accounts.LogIn(ctx, login)
			socp.Call(ctx, x.Client, x.Accounts.LogOut, &pb.LogOutRequest{SessionId: session.SessionId})
		}
	}
	note("login_replayed", err)

	self := socp.Who{Name: x.Name, Home: x.ServerID}
	public := &x.Key.PublicKey
	wrong := x.Seal(self, public, socp.Content{})
	wrong.Signature = socp.Sign(x.Key, "socp.v1.PostStatement", wrong.Statement)
	_, err = x.Send(ctx, self.Home, wrong)
	note("wrong_signature", err)

	self.Name = "nobody"
	_, err = x.Send(ctx, self.Home, x.Seal(self, public, socp.Content{}))
	note("unknown_user", err)

	_, err = x.Directory.ListUsers(ctx, &pb.ListUsersRequest{})
	note("no_token", err)
	return reasons
}

// missing tells what did not happen.
func (x *exchange) missing() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, back := range x.mine {
		if !back {
			return errors.New("not every own nonce came back")
		}
	}
	if x.opened != [2]bool{true, true} {
		return errors.New("not every nonce of the partner was opened")
	}
	return nil
}
