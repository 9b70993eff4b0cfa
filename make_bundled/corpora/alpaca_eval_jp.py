# ruff: noqa: E501 - a template stays on one line
"""Japanese instructions to an assistant, each with its answer."""

from random import Random

from make_bundled.corpora.grammar import Grammar, Rule, between, lines, number, pick, words

LISTS: dict[str, Rule] = {
    "sei": words("""
        佐藤 鈴木 高橋 田中 伊藤 渡辺 山本 中村 小林 加藤 吉田 山田 佐々木 山口 松本 井上 木村 清水 林 斎藤 森 池田 橋本
        石川 前田 藤田 小川 岡田 長谷川 村上 近藤 石井 青木 坂本 遠藤 西村 福田 太田 三浦 中島 藤井 岡本 松田 中川 原田 小野 竹内 金子 和田 中山 石田 上田 森田 柴田 酒井 宮崎 内田 高木 安藤 大野
    """),
    "basho": words("""
        京都 大阪 東京 札幌 仙台 横浜 名古屋 神戸 広島 福岡 長崎 鹿児島 沖縄 奈良 金沢 新潟 松山 高知 熊本 青森 秋田 盛岡
        長野 富山 静岡 岡山 鎌倉 日光 箱根 函館 小樽 姫路 倉敷 別府 高山 松江 徳島 佐賀 宮崎 甲府 水戸 軽井沢 尾道
    """),
    "kuni": words("""
        フランス ドイツ イギリス アメリカ イタリア スペイン 中国 韓国 インド タイ ブラジル カナダ トルコ エジプト スイス
        メキシコ オランダ ノルウェー ベトナム ギリシャ
    """),
    "shoku": words("""
        医者 教師 農家 料理人 画家 作家 記者 弁護士 大工 看護師 歌手 俳優 運転手 漁師 写真家 科学者 建築家 会社員 学生
        警察官 音楽家 店員 図書館員 研究者 パン屋 花屋 美容師 通訳
    """),
    "doubutsu": words("""
        犬 猫 うさぎ きつね たぬき くま 鹿 猿 馬 牛 羊 ねずみ りす 象 ライオン 虎 パンダ かえる 亀 へび ふくろう つばめ
        鶴 すずめ ペンギン イルカ くじら きりん
    """),
    "yasai": words("""
        にんじん 玉ねぎ じゃがいも トマト きゅうり なす ピーマン キャベツ 白菜 大根 ほうれん草 かぼちゃ ごぼう きのこ 豆腐
        ねぎ れんこん もやし レタス ブロッコリー
    """),
    "niku": words("鶏肉 豚肉 牛肉 鮭 えび いか 卵 ひき肉 まぐろ たら さば 油揚げ"),
    "choumi": words("しょうゆ みそ 塩 砂糖 酢 みりん ごま油 バター 酒 こしょう カレー粉 だし マヨネーズ はちみつ"),
    "ryouri": words("""
        スープ サラダ カレー 炒め物 煮物 鍋 うどん チャーハン グラタン コロッケ シチュー パスタ 天ぷら おにぎり みそ汁
        オムレツ 焼きそば 丼 ハンバーグ 春巻き
    """),
    "kudamono": words("りんご みかん ぶどう 桃 梨 いちご バナナ すいか 柿 メロン レモン さくらんぼ キウイ 栗"),
    "mono": words("""
        本 かばん 時計 靴 帽子 傘 眼鏡 財布 自転車 机 椅子 ノート 鉛筆 カメラ 電話 冷蔵庫 洗濯機 掃除機 花瓶 皿 コップ
        鏡 布団 カーテン 扇風機 ギター ピアノ 手紙 切手 人形 鍵 箱 包丁 鍋 枕 棚 腕時計 万年筆 望遠鏡 手袋 絵本 地図 ろうそく 扇子 水筒 弁当箱 ほうき はさみ 毛布 ランプ
    """),
    "shumi": words("""
        読書 料理 登山 水泳 散歩 写真 園芸 釣り 音楽 絵画 将棋 旅行 ヨガ 書道 編み物 映画鑑賞 日記 テニス サッカー 野球
        ダンス 瞑想 英会話 天体観測 キャンプ 茶道
    """),
    "kamoku": words("""
        数学 英語 歴史 理科 国語 地理 物理 化学 生物 音楽 美術 経済 法律 心理学 哲学 統計 天文学 文学 医学 建築
    """),
    "gainen": words("""
        友情 自由 平和 責任 信頼 努力 勇気 幸福 成功 失敗 伝統 文化 健康 環境 家族 時間 夢 希望 感謝 孤独 集中力 習慣
        想像力 協力 正義 知識 経験 才能 忍耐 安全 誠実さ 好奇心 平等 思いやり 発想力 判断力 記憶 孝行 自信 工夫 礼儀 節約 挑戦 休息
    """),
    "taisetsu": words("大切 重要 必要 有効 不可欠 効果的 有益 大事 必須"),
    "youto": words("便利 丈夫 上品 安全 身近 実用的 経済的 伝統的 手軽 快適 清潔 頑丈"),
    "kimochi": words("穏やか 前向き 元気 豊か 爽やか 素直 楽 温か 柔らか 軽やか"),
    "monoadj": words("""
        新しい 古い 大きい 小さい 軽い 重い 安い 高い 珍しい 美しい 丸い 懐かしい 丈夫な 上品な 便利な 素敵な 立派な 可愛い
        きれいな 手作りの 中古の
    """),
    "bashoadj": words("""
        静かな 広い 美しい 涼しい 暖かい 明るい 古い 大きな 緑豊かな 有名な 小さな 賑やかな 歴史ある 雄大な 穏やかな 懐かしい
        新しい 眺めのよい 人気の
    """),
    "hiadj": words("楽しい 忙しい 懐かしい 嬉しい 素晴らしい 穏やかな 充実した 思い出深い 静かな 特別な 幸せな 有意義な"),
    "ikiadj": words("優しい 小さな 賢い 臆病な 元気な 年老いた 勇敢な 正直な 寂しがりの 陽気な 若い 白い 怠け者の 食いしん坊の"),
    "ajiadj": words("甘い 辛い 新鮮な 温かい 冷たい 香ばしい 優しい味の 酸っぱい 素朴な 濃厚な"),
    "iro": words("赤い 青い 白い 黒い 黄色い 茶色い 緑色の 紫色の 金色の 銀色の 灰色の 水色の"),
    "kisetsu": words("春 夏 秋 冬"),
    "youbi": words("月曜日 火曜日 水曜日 木曜日 金曜日 土曜日 日曜日"),
    "tatemono": words("""
        図書館 美術館 神社 寺 城 公園 市場 駅 学校 病院 温泉 水族館 動物園 博物館 喫茶店 劇場 植物園 旅館 展望台 灯台
    """),
    "shizen": words("山 海 川 森 湖 島 滝 畑 谷 草原 海岸 丘 竹林 砂浜"),
    "hana": words("桜 梅 菊 ばら あじさい ひまわり 椿 もみじ 藤 ゆり たんぽぽ すみれ コスモス 朝顔"),
    "hitobito": words("友人 母 父 兄 姉 妹 弟 先生 上司 同僚 祖母 祖父 隣人 先輩 後輩"),
    "suu": number(2, 9), "fun": number(10, 55, 5), "gram": number(50, 450, 50),
    "nen": number(1900, 2015), "en": number(200, 9800, 100), "tsuki": number(1, 12), "nichi": number(1, 28),
    "hajime": ["はい、", "もちろんです。", "承知しました。", "わかりました。", "", "", ""],
    "owari": ["ぜひ試してみてください。", "参考になれば幸いです。", "何か質問があれば、いつでも聞いてください。",
              "{hitobito}と一緒に楽しんでください。", "無理をせず、少しずつ続けてください。", "", "", ""],
    "setsumei": lines("""
        {gainen}と{gainen}を育てることができます
        {monoadj}{mono}を使うと、もっと{youto}になります
        毎日{fun}分ほど続けると効果があります
        {shoku}に相談すると、{taisetsu}な助言をもらえます
        {hitobito}と一緒に行うと、より{hiadj}時間になります
        {kisetsu}は{shizen}の近くで行うのがおすすめです
        {kamoku}の知識があると、理解が深まります
        {yasai}や{kudamono}を食べて、体調を整えることも{taisetsu}です
        失敗しても、{gainen}を忘れないことが{taisetsu}です
        {mono}や{mono}をあらかじめ準備しておきましょう
        {tatemono}で{kamoku}の本を読み、基本を学びましょう
        {youbi}の朝に{suu}回ほど練習しましょう
        最初は小さな目標を立て、少しずつ増やしましょう
        {kuni}では、昔から{gainen}のために行われてきました
        {shumi}と組み合わせると、気持ちが{kimochi}になります
    """),
    "bun": lines("""
        {bashoadj}{shizen}を歩くと、{hana}の香りがしました。
        {hitobito}は{iro}{mono}を手に、{tatemono}へ向かいました。
        {doubutsu}が{shizen}の向こうから静かにこちらを見ていました。
        {basho}の{kisetsu}は、{bashoadj}{shizen}で知られています。
        {shoku}は{mono}を見て、{gainen}とは何かを考えました。
        {youbi}の夜、{tatemono}の前で不思議な音が聞こえました。
        誰も{hitobito}の{gainen}に気づきませんでした。
        {kudamono}を{suu}個もらって、{doubutsu}はとても喜びました。
        {shizen}の近くで、{ikiadj}{doubutsu}が{kudamono}を食べていました。
    """),
    "tsuika": lines("""
        {shoku}の{sei}さんは、{gainen}より{gainen}を大切にしているそうです。
        {basho}では{tsuki}月になると、{hana}を見に{bashoadj}{shizen}へ行く人が増えます。
        {kuni}を旅した{hitobito}から、{monoadj}{mono}をもらったことがあります。
        {nen}年の調査によると、{gainen}を重んじる人は全体の{fun}パーセントでした。
        なお、{tatemono}では{youbi}に{kamoku}の講座が開かれています。
        {ajiadj}{kudamono}や{ryouri}を用意しておくと、{hitobito}にも喜ばれます。
        {mono}と{mono}を一度に買うと、{en}円ほど安くなります。
        {shumi}が好きな人には、{basho}の{bashoadj}{tatemono}もおすすめです。
        {doubutsu}のように{ikiadj}心を持ちたいものです。
        {kamoku}の先生は、{suu}冊の本を読むように勧めています。
        もし{mono}がなければ、{mono}で代用してもかまいません。
        {hitobito}が{shumi}を始めたのは、{kuni}の{shoku}に出会ったからだそうです。
        ただし、{gainen}だけでは足りず、{gainen}も{taisetsu}です。
        {kisetsu}の{youbi}には、{iro}{mono}を持って{tatemono}に集まりましょう。
        {basho}から{basho}までは、電車で{fun}分ほどかかります。
        {sei}先生の『{gainen}と{gainen}』という本も参考になります。
        {niku}の{ryouri}に{choumi}を少し加えると、味が引き立ちます。
        {doubutsu}や{doubutsu}の写真を飾ると、部屋が{kimochi}になります。
        昔の{shoku}は、{shizen}で{yasai}や{hana}を育てていました。
        {tsuki}月{nichi}日は{mono}の日とされ、{basho}で催しがあります。
        {kuni}の人は、{kuni}の人より{shumi}を好むと言われています。
        {monoadj}{mono}は、{tatemono}の近くの店で{en}円で売られています。
    """),
    "nikki": lines("""
        {bashoadj}{shizen}を歩くと、{hana}の香りがした。
        {hitobito}は{iro}{mono}を買って、嬉しそうに笑った。
        入口で{shoku}に会い、{gainen}の話を聞いた。
        昼には{niku}の{ryouri}と{kudamono}を食べた。
        {doubutsu}の絵を見て、{kuni}を旅した日のことを思い出した。
        {monoadj}{mono}が並んでいて、{fun}分も眺めてしまった。
    """),
}  # fmt: skip

# instruction, answer; the answer may use every name that the instruction bound
TASKS: list[tuple[str, str]] = [
    ("{x=shumi}を[始める|続ける|楽しむ]ための[コツ|ヒント|方法]を[教えてください。|{n=suu}つ挙げてください。]",
     "{hajime}{x}の[コツ|ポイント]をご紹介します。\n1. {setsumei}。\n2. {setsumei}。\n3. {setsumei}。\n{owari}"),
    ("{x=niku}と{y=yasai}を使った{z=ryouri}の[作り方|レシピ]を教えてください。",
     "{hajime}{x}と{y}の{z}の作り方です。\n材料は、{x}{gram}グラム、{y}{suu}個、{choumi}と{choumi}です。\nまず、{y}を[小さく|薄く|細かく]切り、{x}と一緒に{fun}分[炒めます|煮ます|蒸します]。次に、{choumi}を大さじ{suu}杯加えて、[弱火|中火|強火]で混ぜます。最後に{yasai}を添えれば完成です。{owari}"),
    ("{x=basho}で{y=suu}日間過ごす旅行の計画を[立ててください|考えてください]。",
     "{hajime}1日目は、{x}の{tatemono}を見学し、{ajiadj}{niku}の{ryouri}を食べます。2日目は、{bashoadj}{shizen}まで足を延ばし、{hana}を眺めながら散歩します。最終日は、市場で{mono}や{kudamono}をお土産に買いましょう。費用はおよそ{en}円です。{x}を訪れるなら、{kisetsu}が一番おすすめです。{owari}"),
    ("「{x=gainen}」[とは何ですか。|の意味を説明してください。|について簡単に説明してください。]",
     "{x}とは、{gainen}や{gainen}と深く関わる{taisetsu}な考え方です。たとえば、{shoku}が{mono}を[作る|選ぶ|直す]とき、{x}がなければ[よい|満足できる]結果にはなりません。{setsumei}。"),
    ("{x=hitobito}に{y=mono}を[借りた|もらった|返す]ときのお礼の[手紙|メール]を書いてください。",
     "{sei}様\n{kisetsu}らしい日が続いていますが、お元気ですか。先日は{iro}{y}を[ありがとうございました|貸していただき、感謝しています]。おかげで{hiadj}{youbi}を過ごすことができました。今度{basho}に来られたときは、ぜひ{tatemono}をご案内します。\n{sei}"),
    ("{x=doubutsu}と{y=doubutsu}[が出てくる|の]短い[物語|童話|お話]を書いてください。",
     "昔、{basho}の{shizen}に{ikiadj}{x}が住んでいました。ある{kisetsu}の日、{x}は{iro}{mono}を持った{y}に出会いました。{bun}{y}は「{gainen}は{mono}よりも{taisetsu}だ」と言いました。それから{suu}年の間、{x}と{y}は仲良く暮らしました。"),
    ("{x=kisetsu}[についての|をテーマにした]短い詩を書いてください。",
     "{bashoadj}{x}の{shizen}に\n{hana}が咲き、{doubutsu}が眠る\n{hitobito}の{gainen}を思い出し\n{iro}[箱|かばん|手紙|本|ノート|扉|窓]をそっと開けば\n{gainen}の[小さな|静かな|遠い|優しい]声がする"),
    ("{x=mono}と{y=mono}の違い[は何ですか|を説明してください]。",
     "{x}は[主に|普通は]{shoku}が使う{youto}なもので、{monoadj}ものが好まれます。一方、{y}は{tatemono}や家で使われ、{youto}なことが特徴です。値段は、{x}が{en}円くらい、{y}が{en}円くらいです。どちらも{gainen}のために役立ちます。"),
    ("{x=kamoku}を[効率よく|楽しく|基礎から]勉強する[方法|コツ]は[何ですか|ありますか]。",
     "{hajime}{x}の勉強では、まず{gainen}が{taisetsu}です。{setsumei}。また、{setsumei}。{fun}分勉強したら、{suu}分休むとよいでしょう。{owari}"),
    ("[次の文を丁寧な言い方に直してください|次の文を敬語にしてください]。「{x=youbi}に{y=tatemono}で{z=mono}を見せて。」",
     "「[恐れ入りますが|よろしければ|お手数ですが]、{x}に{y}で{z}を[見せていただけますか|見せてくださいませんか|お見せいただけないでしょうか]。」"),
    ("「{x=mono}」という言葉を使って[例文を作ってください|文を{n=suu}つ作ってください]。",
     "・{hitobito}は{monoadj}{x}を{basho}で買いました。\n・{iro}{x}は、{shoku}にとって{taisetsu}なものです。\n・{kisetsu}になると、{x}を{tatemono}へ持って行きます。"),
    ("[最近、|仕事のことで、|{y=hitobito}のことで、]{x=gainen}について悩んでいます。どうすればいいですか。",
     "それは大変ですね。{x}は誰にとっても[難しい|大切な|身近な]問題です。まず、{hitobito}に正直に話してみましょう。それから、{shumi}をしたり、{shizen}を歩いたりすると、気持ちが{kimochi}になります。{setsumei}。{owari}"),
    ("{x=shoku}になるには[どうすればいいですか|何が必要ですか]。",
     "{x}になるには、{kamoku}と{kamoku}を{suu}年ほど学ぶのが一般的です。{gainen}と{gainen}も{taisetsu}です。{setsumei}。給料は地域によって違いますが、{basho}では求人が[多い|少ない]ようです。{owari}"),
    ("{x=kuni}の[文化|食べ物|歴史|気候]について教えてください。",
     "{x}は{bashoadj}{shizen}と{bashoadj}{tatemono}で知られる国です。{nen}年には{gainen}を祝う[大きな|賑やかな|華やかな]祭りが始まりました。人々は{niku}と{yasai}の{ryouri}をよく食べ、{kisetsu}には{shumi}を楽しみます。旅行の際は、{mono}を忘れないようにしましょう。"),
    ("{x=hana}の育て方を教えてください。",
     "{hajime}{x}は[丈夫な|美しい|育てやすい|人気のある|可憐な]花で、{kisetsu}に植えるのがよいでしょう。土は[大きな|小さな|浅い|深い]鉢に入れ、水は{suu}日に一度与えます。日当たりの[よい|悪い]場所では、{fun}日ほどで芽が出ます。{doubutsu}に食べられないように注意してください。{owari}"),
    ("{x=mono}の[広告|キャッチコピー|宣伝文]を考えてください。",
     "「{hiadj}毎日に、{iro}{x}を。」\n{shoku}も驚く{youto}な{x}が、今なら{en}円。{basho}の[百貨店|本店|商店街|駅前の店]で、{tsuki}月{nichi}日から発売します。"),
    ("{x=doubutsu}を飼うとき[の注意点|に気をつけること]は何ですか。",
     "{x}を飼うときは、次の点に注意してください。\n・{yasai}や{kudamono}を{suu}回に分けて与えること。\n・[静かな|暖かい|涼しい|明るい|広い]部屋と{youto}な{mono}を用意すること。\n・{kisetsu}は温度に気をつけ、{fun}分ほど遊んであげること。\n{owari}"),
    ("[会議|授業|面接]で自己紹介をする[例文|文章]を書いてください。",
     "はじめまして。{sei}と申します。{basho}の出身で、{shoku}として{suu}年働いています。趣味は{shumi}と{shumi}です。{gainen}を大切にして、{kamoku}を学んでいます。どうぞよろしくお願いいたします。"),
    ("{x=doubutsu}、{y=yasai}、{z=doubutsu}、{w=kudamono}を分類してください。",
     "動物：{x}、{z}\n食べ物：{y}、{w}"),
    ("{x=basho}の天気[が悪い|がよい]日に[何をすればいいですか|おすすめの場所はどこですか]。",
     "{x}なら、{tatemono}と{tatemono}がおすすめです。{bashoadj}{tatemono}では、{hana}を見ながら{ajiadj}{kudamono}の菓子を食べられます。入場料は{en}円で、{youbi}は休みです。{owari}"),
    ("[日記|短い文章]を書いてください。テーマは「{x=tatemono}と{y=gainen}」です。",
     "{tsuki}月{nichi}日、{youbi}。今日は{hitobito}と{x}へ行った。{nikki}{nikki}帰り道、{y}について話した。{hiadj}一日だった。"),
]  # fmt: skip

GRAMMAR = Grammar(LISTS)


def document(rng: Random) -> list[str]:
    """An instruction and, on the next line, its answer, in one row."""
    instruction, answer = pick(rng, TASKS)
    bound: dict[str, str] = {}
    asked = GRAMMAR.expand(instruction, rng, bound)
    reply = GRAMMAR.expand(answer, rng, bound).strip()
    if reply.endswith("。"):
        reply += "".join(GRAMMAR.draw("tsuika", rng) for _ in range(between(rng, 0, 2)))
    return [f"{asked}\n{reply}"]
