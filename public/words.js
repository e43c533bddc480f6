// All words of the page, in English and in Japanese. index.html holds the English ones, too, for the time before this
// script runs: an element names its words with data-text, data-label or data-placeholder.

export const all = {
  en: {
    // the form
    joinTitle: "Join a conversation",
    joinIntro: "Everyone in a room sees the same messages, in the same order.",
    room: "Room",
    name: "Name",
    join: "Join",
    chooseRoom: "Please enter a room.",
    chooseName: "Please enter a name.",

    // the conversation
    messages: "Messages",
    emptyTitle: "There are no messages yet.",
    emptyHint: "Say hello, or copy the link for a friend.",
    message: "Message",
    writeMessage: "Write a message",
    send: "Send",
    leave: "Leave",
    copyLink: "Copy link",
    copied: "Copied",
    copyThisLink: "Copy this link:",
    newMessages: "{n} new ↓",
    length: "{n} / {max}",
    lengthTooLong: "{n} / {max} · too long",
    showAll: "Show all",
    showLess: "Show less",

    // the state of an own message
    sending: "sending",
    late: "not confirmed yet",
    sent: "sent",
    unsure: "not confirmed",
    failed: "not sent",
    retry: "Retry",
    discard: "Discard",

    // notes between messages
    joinedOne: "{a} joined",
    joinedTwo: "{a} and {b} joined",
    joinedMore: "{a} and {n} others joined",
    leftOne: "{a} left",
    leftTwo: "{a} and {b} left",
    leftMore: "{a} and {n} others left",
    gap: "Some messages may be missing.",
    earlier: "Earlier messages are not shown.",

    // the chip
    connected: "Connected · {dyno}",
    connecting: "Connecting…",
    reconnecting: "Reconnecting…",
    reconnectingIn: "Reconnecting in {wait} · {retryNow}",
    seconds: "{n} s",
    retryNow: "Retry now",
    offline: "Offline",
    left: "Left",
    stopped: "Stopped · {retryNow}",

    // the banner
    redisDown: "The server cannot use Redis at the moment. Your messages are kept, and are sent when it can.",
    webSocketBlocked: "The server answers, but WebSocket connections do not get through. The server's log may name the reason.",
    notUnderstood: "The server did not understand this page. Please reload it.",
    tooMany: "The server closed the connection: too many messages. Please wait a moment, then press Retry now.",
    tooBig: "The server closed the connection: a message was too big. Please discard it, then press Retry now.",

    // error codes of the server
    error_bad_message: "The server could not read this message.",
    error_bad_name: "Please use 1 to 24 letters, numbers, spaces, _ - . ' ’ or ・.",
    error_name_taken: "Someone in this room already has this name.",
    error_bad_room: "Please use 1 to 32 letters, numbers, spaces, _ - . ' ’ or ・.",
    error_too_long: "A message has at most {max} characters.",
    error_empty: "This message is empty.",
    error_slow_down: "Too many messages. Please wait a moment.",
    error_busy: "The server is busy. Please try again.",
    error_unknown: "The server refused this.",

    // the members, and the panel
    members: "Members",
    andMore: "and {n} more",
    howItWorks: "How it works",
    dyno: "Dyno",
    bootId: "Boot id",
    lastId: "Last id",
    lastTick: "Last tick",
    secondsAgo: "{n} s ago",
    noTick: "none yet",
    moves: "Moves",
    reconnects: "Reconnects",
    resumedMessages: "Resumed messages",
    tryIt: "Try it: what others write in the meantime is here when you are back.",
    drop: "drop my connection",
    pretend: "pretend to be offline",
    idleTitle: "Idle connections are cut.",
    idleText: "The router cuts a connection that carries nothing for 55 s. So the server sends a Ping and a tick every 25 s.",
    dynosTitle: "Members are on different dynos.",
    dynosText: "Each message goes through Redis to every member, and back to its author: then it is sent.",
    restartTitle: "Dynos restart every day.",
    restartText: "The page moves to another dyno, or reconnects, and asks for everything after its last id.",
    problem1: "README, problem 1",
    problem2: "README, problem 2",
    problem3: "README, problem 3",
  },

  ja: {
    joinTitle: "会話に参加する",
    joinIntro: "同じルームの全員に、同じメッセージが同じ順番で届きます。",
    room: "ルーム",
    name: "名前",
    join: "参加する",
    chooseRoom: "ルームを入力してください。",
    chooseName: "名前を入力してください。",

    messages: "メッセージ一覧",
    emptyTitle: "まだメッセージはありません。",
    emptyHint: "あいさつを送るか、リンクをコピーして友だちに知らせましょう。",
    message: "メッセージ",
    writeMessage: "メッセージを入力",
    send: "送信",
    leave: "退出",
    copyLink: "リンクをコピー",
    copied: "コピーしました",
    copyThisLink: "このリンクをコピーしてください。",
    newMessages: "新着 {n} 件 ↓",
    length: "{n} / {max} 文字",
    lengthTooLong: "{n} / {max} 文字 · 長すぎます",
    showAll: "すべて表示",
    showLess: "折りたたむ",

    sending: "送信中",
    late: "確認待ち",
    sent: "送信済み",
    unsure: "未確認",
    failed: "未送信",
    retry: "再送",
    discard: "削除",

    joinedOne: "{a}さんが参加しました",
    joinedTwo: "{a}さんと{b}さんが参加しました",
    joinedMore: "{a}さんほか{n}人が参加しました",
    leftOne: "{a}さんが退出しました",
    leftTwo: "{a}さんと{b}さんが退出しました",
    leftMore: "{a}さんほか{n}人が退出しました",
    gap: "抜けているメッセージがあるかもしれません。",
    earlier: "これより前のメッセージは表示されていません。",

    connected: "接続済み · {dyno}",
    connecting: "接続しています…",
    reconnecting: "再接続しています…",
    reconnectingIn: "{wait}後に再接続します · {retryNow}",
    seconds: "{n}秒",
    retryNow: "今すぐ再接続",
    offline: "オフライン",
    left: "退出しました",
    stopped: "停止しました · {retryNow}",

    redisDown: "サーバーは今 Redis を使えません。メッセージは保管され、復旧すると送信されます。",
    webSocketBlocked: "サーバーは応答していますが、WebSocket で接続できません。理由はサーバーのログにあるかもしれません。",
    notUnderstood: "サーバーがこのページを認識できませんでした。ページを再読み込みしてください。",
    tooMany: "メッセージが多すぎるため、接続が切れました。少し待ってから「今すぐ再接続」を押してください。",
    tooBig: "メッセージが大きすぎるため、接続が切れました。削除してから「今すぐ再接続」を押してください。",

    error_bad_message: "サーバーがこのメッセージを読み取れませんでした。",
    error_bad_name: "1〜24文字で入力してください。文字、数字、空白、_ - . ' ’ ・ が使えます。",
    error_name_taken: "このルームには同じ名前の人がいます。",
    error_bad_room: "1〜32文字で入力してください。文字、数字、空白、_ - . ' ’ ・ が使えます。",
    error_too_long: "メッセージは{max}文字までです。",
    error_empty: "メッセージが空です。",
    error_slow_down: "メッセージが多すぎます。少し待ってください。",
    error_busy: "サーバーが混み合っています。もう一度お試しください。",
    error_unknown: "サーバーに受け付けられませんでした。",

    members: "メンバー",
    andMore: "ほか{n}人",
    howItWorks: "しくみ",
    dyno: "Dyno",
    bootId: "起動 ID",
    lastId: "最後の ID",
    lastTick: "最後の tick",
    secondsAgo: "{n}秒前",
    noTick: "なし",
    moves: "移動",
    reconnects: "再接続",
    resumedMessages: "再開後の受信",
    tryIt: "お試しください。離れている間のメッセージは、戻ったときに届きます。",
    drop: "接続を切る",
    pretend: "オフラインにする",
    idleTitle: "アイドル接続は切られます。",
    idleText: "ルーターは、55 秒間何も流れない接続を切ります。そのためサーバーは 25 秒ごとに Ping と tick を送ります。",
    dynosTitle: "メンバーは別々の Dyno にいます。",
    dynosText: "メッセージは Redis を通って全員に届き、書いた人にも戻ります。戻ると「送信済み」になります。",
    restartTitle: "Dyno は毎日再起動します。",
    restartText: "ページは別の Dyno に移動するか再接続し、最後の ID より後のメッセージを受け取ります。",
    problem1: "README の問題 1",
    problem2: "README の問題 2",
    problem3: "README の問題 3",
  },
};

const languageOf = (locale) => locale.toLowerCase().split("-")[0];
// The first language of the person for which there are words; also says how dates are written: en-GB is not en-US.
export const locale = navigator.languages.find((one) => Object.hasOwn(all, languageOf(one))) ?? "en";
export const words = all[languageOf(locale)];

// Puts values, which may be nodes, in the place of {names}. Gives strings and nodes.
export const parts = (template, values) =>
  template.split(/\{(\w+)\}/).map((part, i) => (i % 2 ? values[part] : part)).filter((part) => part !== "");
export const format = (template, values) => parts(template, values).join("");

// The words for an error of the server. A code that this page does not know comes with the server's own sentence.
export function sentenceOf({ code, message }, values) {
  return format(words[`error_${code}`] ?? message ?? words.error_unknown, values);
}

// Puts the words into the document. chat.css shows the document only then.
export function translate() {
  for (const node of document.querySelectorAll("[data-text]")) node.textContent = words[node.dataset.text];
  for (const node of document.querySelectorAll("[data-label]")) node.setAttribute("aria-label", words[node.dataset.label]);
  for (const node of document.querySelectorAll("[data-placeholder]")) node.placeholder = words[node.dataset.placeholder];
  Object.assign(document.documentElement, { lang: languageOf(locale), className: "translated" });
}
